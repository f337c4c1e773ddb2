"""voicelog: what happened in a voice call, and how long each part took."""
