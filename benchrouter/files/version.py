"""The version of the package, for modules that must not import its root."""

VERSION = "0.1.0"
