"""Conversations in, packs out: read, check, render, mask and pack a chat dataset once."""
