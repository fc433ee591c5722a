// Real clients and servers, and what the suite itself needs to be an origin.
// The engine is built and run as a program, so nothing of it is imported here
// and nothing of this can get into it.
module github.com/arpitcoder/aegrail-engine/internal/clients

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	golang.org/x/sys v0.49.0
	google.golang.org/grpc v1.85.0
)

require (
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
