"""The suites of the query kinds of the library: one for each, beside the same answers by hand."""
