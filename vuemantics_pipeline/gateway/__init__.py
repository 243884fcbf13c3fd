"""The gateway: people and programs follow their batches live, over HTTP and WebSocket."""
