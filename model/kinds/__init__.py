"""What the query kinds take and give: values of the graph, of schemas, of violations. Pure."""
