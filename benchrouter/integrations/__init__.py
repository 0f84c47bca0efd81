"""Routing inside other people's systems; each module needs the package it is named after."""
