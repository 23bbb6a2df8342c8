"""The structs of requests and answers, one file for each group of routes."""
