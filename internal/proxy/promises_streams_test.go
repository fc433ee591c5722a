package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest/race"
)

func TestPromise08StreamsStayStreams(t *testing.T) {
	for name, client := range map[string]func(*enginetest.Engine, testing.TB) *http.Client{
		"h1": (*enginetest.Engine).Client, "h2": (*enginetest.Engine).ClientH2,
	} {
		t.Run(name+" events arrive one by one", func(t *testing.T) { eventsOneByOne(t, client) })
		t.Run(name+" an upload arrives piece by piece", func(t *testing.T) { uploadPieces(t, client) })
		t.Run(name+" a large body passes in flat memory", func(t *testing.T) { flatMemory(t, client) })
	}
	t.Run("a WebSocket carries both ways", webSocket)
	t.Run("gRPC carries both ways and ends with its status", bidirectional)
}

// open makes a request whose answer the test reads as it comes, and ends it
// with the test. Nothing takes longer than a minute unless it hangs.
func open(t *testing.T, client *http.Client, method, url string, body io.Reader, fields ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// eventsOneByOne has an origin that sends an event only when the client has
// the one before: what is held back anywhere would stop it for good.
func eventsOneByOne(t *testing.T, client func(*enginetest.Engine, testing.TB) *http.Client) {
	const events = 5
	for kind, event := range map[string]string{"text/event-stream": "data: %d\n\n", "application/x-ndjson": "{\"n\":%d}\n\n"} {
		got := make(chan struct{}, events)
		e := enginetest.Start(t, &enginetest.Options{
			Policy: readPolicy,
			Hosts: map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", kind)
				for i := range events {
					fmt.Fprintf(w, event, i)
					if http.NewResponseController(w).Flush() != nil {
						return
					}
					select {
					case <-got:
					case <-r.Context().Done():
						return
					}
				}
			})}},
		})
		resp := open(t, client(e, t), "GET", e.URL("allowed.test", "/events"), nil)
		lines, n := bufio.NewScanner(resp.Body), 0
		for lines.Scan() {
			if lines.Text() == "" {
				n++
				got <- struct{}{}
			}
		}
		if n != events || lines.Err() != nil {
			t.Errorf("%s: %d events, %v", kind, n, lines.Err())
		}
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/events", "status_code": 200, "truncated": nil})
	}
}

// uploadPieces has a client that sends a piece only when the origin has the one
// before.
func uploadPieces(t *testing.T, client func(*enginetest.Engine, testing.TB) *http.Client) {
	got := make(chan string)
	e := enginetest.Start(t, &enginetest.Options{
		Policy: readPolicy,
		Hosts: map[string]enginetest.Host{"allowed.test": {Script: func(c *enginetest.OriginConn) {
			_, body, err := c.ReadHead()
			for err == nil {
				piece := make([]byte, 64)
				var n int
				if n, err = body.Read(piece); n > 0 {
					got <- string(piece[:n])
				}
			}
			if err == io.EOF {
				c.Reply(200, "all")
			}
		}}},
	})
	r, w := io.Pipe()
	go func() {
		for _, piece := range []string{"one", "two", "three"} {
			if _, err := io.WriteString(w, piece); err != nil {
				return
			}
			if arrived := <-got; arrived != piece {
				t.Errorf("%q arrived, want %q", arrived, piece)
			}
		}
		_ = w.Close()
	}()
	resp := open(t, client(e, t), "POST", e.URL("allowed.test", "/upload"), r)
	if body, err := io.ReadAll(resp.Body); string(body) != "all" {
		t.Errorf("%d %q %v", resp.StatusCode, body, err)
	}
}

// gauge is a body of zeros that looks at the heap while it is read.
type gauge struct {
	left int64
	most uint64
}

func (g *gauge) Read(p []byte) (int, error) {
	if g.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), g.left))
	g.observe(int64(n))
	return n, nil
}

// Write makes g the place where a download goes.
func (g *gauge) Write(p []byte) (int, error) {
	g.observe(int64(len(p)))
	return len(p), nil
}

// observe looks once a MiB.
func (g *gauge) observe(n int64) {
	if g.left>>20 != (g.left-n)>>20 {
		g.most = max(g.most, heap())
	}
	g.left -= n
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// flatMemory sends and fetches a body many times larger than the memory that
// client, engine and origin together may take for it.
func flatMemory(t *testing.T, client func(*enginetest.Engine, testing.TB) *http.Client) {
	const bound = 32 << 20
	size := 128 << 20 / race.Step(2)
	e := enginetest.Start(t, &enginetest.Options{
		Policy: readPolicy,
		Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, r enginetest.Seen) {
			if r.Method == "POST" {
				c.Reply(200, fmt.Sprint(r.BodyBytes))
				return
			}
			c.Printf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
			zeros := make([]byte, 1<<16)
			for range size / len(zeros) {
				if _, err := c.Write(zeros); err != nil {
					return
				}
			}
		}}},
	})
	hc := client(e, t)
	runtime.GC()
	before := heap()
	up := &gauge{left: int64(size)}
	resp := open(t, hc, "POST", e.URL("allowed.test", "/up"), up)
	if body, err := io.ReadAll(resp.Body); string(body) != fmt.Sprint(size) {
		t.Errorf("the origin counted %q bytes, %v", body, err)
	}
	resp = open(t, hc, "GET", e.URL("allowed.test", "/down"), nil)
	down := &gauge{left: int64(size)}
	if n, err := io.Copy(down, resp.Body); n != int64(size) || err != nil {
		t.Errorf("%d bytes came, %v", n, err)
	}
	for what, most := range map[string]uint64{"up": up.most, "down": down.most} {
		if most > before+bound {
			t.Errorf("%d MiB %s: the heap went from %d to %d MiB", size>>20, what, before>>20, most>>20)
		}
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/down", "response_bytes": size})
}

func webSocket(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: `
- name: socket
  {{to "allowed.test"}}
  paths: [/socket]
  websocket: true
`,
		Hosts: map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			c.SetReadLimit(1 << 20)
			for {
				kind, message, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, append([]byte("echo "), message...)) != nil {
					return
				}
			}
		})}},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, e.URL("allowed.test", "/socket"), &websocket.DialOptions{HTTPClient: e.Client(t)})
	if err != nil {
		t.Fatalf("%v %v\n%s", err, resp, e.Dump(t))
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for _, message := range []string{"one", "", strings.Repeat("long ", 100_000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != "echo "+message {
			t.Fatalf("%.40q came back as %.40q, %v", message, got, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/socket", "status_code": 101, "truncated": nil})
}

// bidirectional is a gRPC call by its framing: each side sends when it has the
// other's last message, and the status is in the trailers.
func bidirectional(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: readPolicy,
		Hosts: map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			control := http.NewResponseController(w)
			if control.Flush() != nil {
				return
			}
			message := make([]byte, 8)
			for {
				if _, err := io.ReadFull(r.Body, message); err != nil {
					break
				}
				if _, err := w.Write(message); err != nil || control.Flush() != nil {
					return
				}
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", "done")
		})}},
	})
	r, w := io.Pipe()
	resp := open(t, e.ClientH2(t), "POST", e.URL("allowed.test", "/echo.Echo/Talk"), r, "Content-Type: application/grpc", "TE: trailers")
	for i := range 5 {
		message := fmt.Sprintf("\x00\x00\x00\x00\x03m%02d", i)
		if _, err := io.WriteString(w, message); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 8)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != message {
			t.Fatalf("message %d came back as %q, %v", i, got, err)
		}
	}
	_ = w.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q after the last message, %v", rest, err)
	}
	if resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Grpc-Message") != "done" {
		t.Errorf("trailers %v", resp.Trailer)
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/echo.Echo/Talk", "status_code": 200, "request_bytes": 40, "response_bytes": 40})
}
