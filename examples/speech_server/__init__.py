"""Hears, thinks and speaks on this machine alone, behind the endpoints of the OpenAI API.

- recogniser.py: speech to text, Moonshine base-en
- language_model.py: text to text, SmolLM2 135M Instruct on llama.cpp
- voice.py: text to speech, espeak-ng
- app.py: the endpoints in front of the three
- child.py: starts the server as a child process and stops it again
"""
