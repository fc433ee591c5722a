package clients

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/clients/origin"
)

// node runs one of the Node programs behind exec.
func (s *stage) node(program string) said {
	s.t.Helper()
	s.copyPrograms("node")
	modules := filepath.Join(suite.cache, "node", "node_modules")
	if err := os.Symlink(modules, s.file("node_modules")); err != nil {
		s.t.Fatal(err)
	}
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return s.exec(filepath.Join(modules, "node-linux-"+arch, "bin", "node"), program).ok().said()
}

func TestNodeFetch(t *testing.T) {
	s := newStage(t)
	c := s.node("fetch.mjs")
	c.is("get", origin.Hello)
	c.is("keep-alive", origin.Hello)
	c.is("plain http", origin.Hello)
	c.is("gzip", len(origin.File()))
	c.is("204", 204)
	c.is("upload", []any{uploadSize, true, uploadSize})
	c.is("upload of unknown length", []any{uploadSize, true, -1})
	c.is("stream", []string{"0", "1", "2"})
	c.has("denied path", "403", "application/problem+json", "path_not_allowed", "this agent may send")
	c.has("denied upload", "403", "application/problem+json", "path_not_allowed")
	c.is("after a denial", origin.Hello)
	c.has("denied host", "TypeError: fetch failed", "403")
	c.is("https module", origin.Hello)
	c.is("http module", origin.Hello)
	c.has("https module, denied path", "path_not_allowed")
	c.has("https module, denied host", "403")
	s.check(slices.Concat(
		times(6, "GET https://models.test/hello 200"),
		times(2, "GET http://models.test/hello 200"),
		times(2, "POST https://models.test/echo 200"),
		times(2, "denied path_not_allowed GET https://models.test/secret"),
		times(2, "denied not_in_allowlist CONNECT exfil.test:443"),
		[]string{
			"GET https://models.test/gzip 200",
			"GET https://models.test/empty 204",
			"GET https://models.test/events/fetch 200",
			"POST https://models.test/release/fetch 204",
			"denied path_not_allowed POST https://models.test/secret",
		})...)
}

func TestOpenAI(t *testing.T) {
	s := newStage(t)
	c := s.node("openai.mjs")
	reply := strings.Join(origin.Reply(), "")
	c.is("completion", reply)
	c.is("stream", origin.Reply())
	c.has("denied path", "403", "path_not_allowed")
	c.has("denied path, streamed", "403", "path_not_allowed")
	c.is("denied path, error object", []any{"PermissionDeniedError", 403, "path_not_allowed"})
	c.has("denied host", "Connection error", "403")
	c.is("after a denial", reply)
	s.check(slices.Concat(
		times(3, "POST https://models.test/v1/chat/completions 200"),
		times(2, "denied path_not_allowed GET https://models.test/v1/models"),
		[]string{
			"POST https://models.test/release/openai 204",
			"denied path_not_allowed POST https://models.test/v1/responses",
			"denied not_in_allowlist CONNECT exfil.test:443",
		})...)
}

func TestAnthropic(t *testing.T) {
	s := newStage(t)
	c := s.node("anthropic.mjs")
	reply := strings.Join(origin.Reply(), "")
	c.is("message", reply)
	c.is("stream", origin.Reply())
	c.is("stream helper", reply)
	c.has("denied path", "403", "path_not_allowed")
	c.is("denied path, error object", []any{"PermissionDeniedError", 403, "path_not_allowed"})
	c.has("denied host", "Connection error", "403")
	c.is("after a denial", reply)
	s.check(slices.Concat(
		times(4, "POST https://models.test/v1/messages 200"),
		times(2, "denied path_not_allowed GET https://models.test/v1/models"),
		[]string{
			"POST https://models.test/release/anthropic 204",
			"POST https://models.test/release/helper 204",
			"denied not_in_allowlist CONNECT exfil.test:443",
		})...)
}

func TestGRPC(t *testing.T) {
	s := newStage(t)
	c := s.node("grpc.mjs")
	c.is("unary", "aaaaa")
	c.is("5 MiB message", uploadSize)
	c.is("metadata", []any{"one", []int{0, 255, 10}})
	c.is("status of the server", []string{"FAILED_PRECONDITION", "nöt %now"})
	c.is("client stream", 20*64<<10)
	c.is("server stream", []int{1, 1 << 20, 3})
	c.is("ping-pong", []int{1, 10, 100, 1000, 10000})
	var parallel []int
	for i := range 20 {
		parallel = append(parallel, i+1)
	}
	c.is("parallel", parallel)
	c.has("denied method", "PERMISSION_DENIED", "aegrail", "path_not_allowed")
	c.is("after a denial", "aaaaa")
	c.has("denied host", "UNAVAILABLE")
	c.ran.stderrHas("Failed to connect to exfil.test:443 through proxy", "403")
	service := "https://grpc.test/grpc.testing.TestService/"
	s.check(slices.Concat(
		times(25, "POST "+service+"UnaryCall 200"),
		[]string{
			"POST " + service + "FullDuplexCall 200",
			"POST " + service + "StreamingInputCall 200",
			"POST " + service + "StreamingOutputCall 200",
			"denied path_not_allowed POST " + service + "EmptyCall",
			"denied not_in_allowlist CONNECT exfil.test:443",
		})...)
}

// A call that its client gives up is not a denial, and it does not stay open in
// the log. Whether the origin had answered it before is a race in the client.
func TestGRPCCutShort(t *testing.T) {
	s := newStage(t)
	c := s.node("grpc-cut.mjs")
	c.is("before them", "x")
	// The origin's own deadline may be first, and it resets the stream with
	// CANCEL. INTERNAL would be a fault of somebody's.
	c.has("deadline", "DEADLINE_EXCEEDED")
	c.hasNot("deadline", "INTERNAL", "UNKNOWN")
	c.is("cancel", []string{"CANCELLED"})
	c.is("after them", "x")
	logged, _ := s.logged()
	n := 0
	for line, times := range logged {
		if strings.HasPrefix(line, "denied ") || strings.HasPrefix(line, "unfinished ") {
			t.Errorf("the log has %d × %s, want an answer or an error", times, line)
		}
		n += times
	}
	if n != 22 {
		t.Errorf("the log has %d requests, want 22:\n%s", n, logged)
	}
}

func TestWebSocket(t *testing.T) {
	s := newStage(t)
	c := s.node("ws.mjs")
	c.is("protocol", "echo")
	c.is("text", []any{"grüß dich", false})
	c.is("binary", []any{[]int{0, 1, 254, 255}, true})
	c.is("empty", 0)
	c.is("large frame", true)
	c.is("fragments", "one two three")
	c.is("ping", "are you there")
	c.is("closed by the server", []any{4001, "enough"})
	c.is("closed by the client", []any{4002, "bye"})
	c.is("torn by the client", []any{1006, ""})
	c.is("permessage-deflate", []any{"permessage-deflate", true})
	c.is("plain ws", "in the clear")
	c.is("Node's own WebSocket", "from undici")
	c.has("denied, the rule has no websocket", "403", "application/problem+json", "websocket_not_allowed")
	c.has("denied path", "403", "application/problem+json", "path_not_allowed")
	c.has("denied host", "403")
	c.has("as ws prints it", "Unexpected server response: 403")
	s.check(slices.Concat(
		times(4, "GET https://socket.test/echo 101"),
		times(2, "denied path_not_allowed GET https://socket.test/secret"),
		[]string{
			"GET https://socket.test/deflate 101",
			"GET http://socket.test/echo 101",
			"denied websocket_not_allowed GET https://socket.test/plain",
			"denied not_in_allowlist CONNECT exfil.test:443",
		})...)
}
