from typing import Any

CONTRACT: int

def bind(**given: Any) -> type[Any]: ...
