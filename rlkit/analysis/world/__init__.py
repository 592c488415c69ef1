"""World models: data, training, benchmarks, reports."""
