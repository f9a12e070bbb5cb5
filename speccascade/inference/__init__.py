"""Prompts answered under a setting: how every caller decodes."""
