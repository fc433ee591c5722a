// Package origin is the servers that the clients under test talk to, all on
// loopback with certificates of a root of their own.
//
//	models.test   Go's server, HTTP/1.1 and HTTP/2 on 443, plain HTTP on 80:
//	              the OpenAI and Anthropic APIs as far as their SDKs need them,
//	              and endpoints for what HTTP can do (trailers, ranges, 1xx …)
//	grpc.test     gRPC, the service grpc.testing.TestService
//	socket.test   a WebSocket echo, on 443 and on 80
//	git.test      git http-backend, the smart HTTP protocol
//	nginx.test    nginx, HTTP/1.1 and HTTP/2, static files and WebDAV's PUT
//	raw.test      a server that keeps each byte it gets
//
// Each name has an address of its own in 127.0.10.0/24, so that all of them
// have the ports that a URL without one means. That takes a network namespace
// and an /etc/hosts of one's own; the suite makes both.
//
// Each origin notes what it answered (Seen). What the engine's log says was
// allowed is compared with that: it is the servers' word, not the engine's.
package origin
