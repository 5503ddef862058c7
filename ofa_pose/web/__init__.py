"""What runs in browsers: pages and their modules, and how onnxruntime-web's files come beside them."""
