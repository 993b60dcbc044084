"""Translations between dpkit and other privacy libraries, one module per library; import the one you need."""
