package intake

import (
	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// Error is a connection that never becomes a request.
type Error struct {
	Reason string // one of our own words, for the record
	Status int    // what to answer where HTTP can be answered, else 0
	Detail string // for the log; quoted, never raw
	Err    error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Reason + ": " + e.Detail + ": " + e.Err.Error()
	}
	return e.Reason + ": " + e.Detail
}

func (e *Error) Unwrap() error { return e.Err }

// IsConnect reports whether h is a CONNECT, the only method that the proxy
// port reads as a way in rather than as a request.
func IsConnect(h *http1.RequestHead) bool { return string(h.Method) == "CONNECT" }

// Connect takes the target of a CONNECT request into f (RFC 9110 section
// 9.3.6). A CONNECT has no body: one that announces a body is refused, since
// what follows would be read as the tunnel by one side and as content by the
// other. An HTTP/1.0 CONNECT without Host is what Python's http.client sends.
func (f *Flow) Connect(h *http1.RequestHead) error {
	if h.Framing != http1.NoBody || hasLength(h) {
		return &Error{Reason: "bad_framing", Status: 400, Detail: "a CONNECT with a body"}
	}
	if h.ExpectContinue {
		return &Error{Reason: "bad_expect", Status: 417, Detail: "a CONNECT with Expect"}
	}
	f.Kind = Connect
	f.Target = string(h.Target)
	return f.credentials(h)
}

// Plain marks f as a connection that carries absolute-form requests.
func (f *Flow) Plain(h *http1.RequestHead) error {
	f.Kind = Plain
	return f.credentials(h)
}

func hasLength(h *http1.RequestHead) bool {
	for _, field := range h.Fields {
		if http1.EqualFold(field.Name, "content-length") {
			return true
		}
	}
	return false
}

func (f *Flow) credentials(h *http1.RequestHead) error {
	f.ProxyAuthorization = ""
	for _, field := range h.Fields {
		if !http1.EqualFold(field.Name, "proxy-authorization") {
			continue
		}
		if f.ProxyAuthorization != "" {
			return &Error{Reason: "bad_header", Status: 400, Detail: "Proxy-Authorization stands twice"}
		}
		f.ProxyAuthorization = string(field.Value)
		if f.ProxyAuthorization == "" {
			return &Error{Reason: "bad_header", Status: 400, Detail: "Proxy-Authorization is empty"}
		}
	}
	return nil
}
