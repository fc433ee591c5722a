package origin

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Hello is the body of /hello.
const Hello = "hello from models.test\n"

// Reply is what the model says, in pieces as it streams them.
func Reply() []string { return []string{"The ", "answer ", "is ", "42."} }

// File is the body of /file: 1 MiB that is not the same twice.
func File() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 1<<20; i++ {
		fmt.Fprintf(&b, "%07d\n", i)
	}
	return b.Bytes()
}

func (s *Servers) modelsHandler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /v1/chat/completions", s.chat)
	m.HandleFunc("POST /v1/messages", s.messages)
	m.HandleFunc("POST /release/{stream}", s.release)
	m.HandleFunc("GET /events/{stream}", s.events)
	m.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto)
		http.ServeContent(w, r, "hello.txt", time.Time{}, strings.NewReader(Hello))
	})
	m.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(w, r, "file.txt", time.Time{}, bytes.NewReader(File()))
	})
	m.HandleFunc("/echo", echo)
	m.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	m.HandleFunc("/trailers", trailers)
	m.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, Hello)
	})
	m.HandleFunc("/gzip", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(File())
		_ = z.Close()
	})
	m.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/secret", http.StatusFound) })
	// What the policy does not allow answers too: that a denied request does
	// not arrive is the engine's doing.
	m.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "you should not see this\n") })
	return m
}

// Echoed is the answer of /echo: what of the request arrived.
type Echoed struct {
	Proto  string `json:"proto"`
	Method string `json:"method"`
	Query  string `json:"query"`
	Length int64  `json:"length"` // Content-Length; -1 if there was none
	Expect string `json:"expect"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	Test   string `json:"test"` // the field X-Test
}

func echo(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body) // the first Read sends 100 Continue
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, Echoed{
		Proto: r.Proto, Method: r.Method, Query: r.URL.RawQuery, Length: r.ContentLength, Expect: r.Header.Get("Expect"),
		Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil)), Test: r.Header.Get("X-Test"),
	})
}

func trailers(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Trailer", "X-Checksum")
	_, _ = io.WriteString(w, Hello)
	_ = http.NewResponseController(w).Flush()
	sum := sha256.Sum256([]byte(Hello))
	w.Header().Set("X-Checksum", hex.EncodeToString(sum[:]))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// prompt is what of a request body both APIs share.
type prompt struct {
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	Messages []struct {
		Role    string `json:"role"`
		Content any    `json:"content"`
	} `json:"messages"`
}

func readPrompt(w http.ResponseWriter, r *http.Request) (prompt, bool) {
	var p prompt
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil || p.Model == "" || len(p.Messages) == 0 {
		http.Error(w, `{"error":{"message":"no model or no messages","type":"invalid_request_error"}}`, http.StatusBadRequest)
		return p, false
	}
	return p, true
}

// chat is OpenAI's POST /v1/chat/completions. The model's name is that of the
// stream to release.
func (s *Servers) chat(w http.ResponseWriter, r *http.Request) {
	p, ok := readPrompt(w, r)
	if !ok {
		return
	}
	if !p.Stream {
		writeJSON(w, map[string]any{
			"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": p.Model,
			"choices": []any{map[string]any{
				"index": 0, "finish_reason": "stop",
				"message": map[string]any{"role": "assistant", "content": strings.Join(Reply(), "")},
			}},
			"usage": map[string]any{"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5},
		})
		return
	}
	e := s.eventStream(w, r, p.Model)
	for i, piece := range Reply() {
		chunk := map[string]any{
			"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": p.Model,
			"choices": []any{map[string]any{"index": 0, "delta": map[string]any{"content": piece}, "finish_reason": nil}},
		}
		e.send("", chunk)
		if i == 0 {
			e.holdBack()
		}
	}
	e.raw("data: [DONE]\n\n")
}

// messages is Anthropic's POST /v1/messages.
func (s *Servers) messages(w http.ResponseWriter, r *http.Request) {
	p, ok := readPrompt(w, r)
	if !ok {
		return
	}
	message := map[string]any{
		"id": "msg_1", "type": "message", "role": "assistant", "model": p.Model, "stop_reason": "end_turn", "stop_sequence": nil,
		"content": []any{map[string]any{"type": "text", "text": strings.Join(Reply(), "")}},
		"usage":   map[string]any{"input_tokens": 1, "output_tokens": 4},
	}
	if !p.Stream {
		writeJSON(w, message)
		return
	}
	message["content"], message["stop_reason"] = []any{}, nil
	e := s.eventStream(w, r, p.Model)
	e.send("message_start", map[string]any{"type": "message_start", "message": message})
	e.send("content_block_start", map[string]any{"type": "content_block_start", "index": 0, "content_block": map[string]any{"type": "text", "text": ""}})
	for i, piece := range Reply() {
		e.send("content_block_delta", map[string]any{"type": "content_block_delta", "index": 0, "delta": map[string]any{"type": "text_delta", "text": piece}})
		if i == 0 {
			e.holdBack()
		}
	}
	e.send("content_block_stop", map[string]any{"type": "content_block_stop", "index": 0})
	e.send("message_delta", map[string]any{"type": "message_delta", "delta": map[string]any{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": map[string]any{"output_tokens": 4}})
	e.send("message_stop", map[string]any{"type": "message_stop"})
}

// events is a plain SSE stream of three numbers.
func (s *Servers) events(w http.ResponseWriter, r *http.Request) {
	e := s.eventStream(w, r, r.PathValue("stream"))
	for i := range 3 {
		e.raw("data: " + strconv.Itoa(i) + "\n\n")
		if i == 0 {
			e.holdBack()
		}
	}
}

// streams are held back after their first event until the client says that it
// has that one (POST /release/NAME). A client that hangs here met something
// that holds back what it should pass on.
type streams struct {
	mu   sync.Mutex
	open map[string]chan struct{} // :: stream name → closed when released
}

func newStreams() *streams { return &streams{open: map[string]chan struct{}{}} }

func (s *streams) of(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[name] == nil {
		s.open[name] = make(chan struct{})
	}
	return s.open[name]
}

func (s *streams) release(name string) {
	c := s.of(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(c)
	delete(s.open, name)
}

func (s *Servers) release(w http.ResponseWriter, r *http.Request) {
	s.streams.release(r.PathValue("stream"))
	w.WriteHeader(http.StatusNoContent)
}

// heldAtMost is when an origin gives up: long enough for a slow machine, and
// shorter than the suite waits for a client.
const heldAtMost = 20 * time.Second

type eventStream struct {
	w        http.ResponseWriter
	ctx      context.Context
	released chan struct{}
}

func (s *Servers) eventStream(w http.ResponseWriter, r *http.Request, name string) *eventStream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	return &eventStream{w, r.Context(), s.streams.of(name)}
}

func (e *eventStream) send(event string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if event != "" {
		event = "event: " + event + "\n"
	}
	e.raw(event + "data: " + string(data) + "\n\n")
}

func (e *eventStream) raw(s string) {
	_, _ = io.WriteString(e.w, s)
	_ = http.NewResponseController(e.w).Flush()
}

func (e *eventStream) holdBack() {
	select {
	case <-e.released:
	case <-e.ctx.Done():
	case <-time.After(heldAtMost):
		panic(http.ErrAbortHandler) // the client sees a broken stream
	}
}
