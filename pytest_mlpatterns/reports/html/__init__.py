"""The HTML report: pages, charts and their fragments."""
