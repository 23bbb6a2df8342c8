"""Quality: a shadow is read and compared with the live index before a switch."""
