"""voicelog-sink: drains voicelog's topics into a store, and reads it back."""
