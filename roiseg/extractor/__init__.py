"""The frozen detector: its graph, its session, the images it reads, and the pipeline that fills a store."""
