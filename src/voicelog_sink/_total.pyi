CONTRACT: int

class Total:
    def add(self, data: bytes, /) -> bool: ...
    def sums(
        self,
    ) -> tuple[
        int, int, int, tuple[int, int] | None, tuple[float, float] | None, int, dict[int, int], dict[int, int]
    ]: ...
