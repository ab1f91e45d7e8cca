"""What onnxruntime's CPU kernels take and want: times, layouts, calls."""
