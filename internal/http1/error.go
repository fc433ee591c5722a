package http1

import (
	"errors"
	"fmt"
)

// Reasons an [Error] can give. They go into audit records as they are.
const (
	ReasonRequestLine   = "bad_request_line"
	ReasonHeader        = "bad_header"
	ReasonFraming       = "bad_framing"
	ReasonExpect        = "bad_expect"
	ReasonHeadTooLarge  = "head_too_large"
	ReasonTooManyFields = "too_many_fields"
	ReasonChunk         = "bad_chunk"
	ReasonTrailer       = "bad_trailer"
	ReasonResponse      = "bad_response" // whatever is wrong with a response's head
)

// Error is a refusal of what the peer sent. After one, the connection can only
// be answered and closed: where the next message begins is not known.
type Error struct {
	Reason string // one of the Reason constants
	Status int    // what to answer: 400, 417, 431 or 505 for a request, 502 for a response

	// Detail is for the log: printable ASCII, at most a few hundred bytes. It
	// quotes field names and the values of the fields that frame a message; it
	// never quotes the target or any other field's value, which can be secrets.
	Detail string
}

func (e *Error) Error() string { return e.Reason + ": " + e.Detail }

// ErrBodyUnread is returned when the next head is asked for before the body in
// front of it was read to its end. Going on would read the body's bytes as a
// request, which is request smuggling by our own hand.
var ErrBodyUnread = errors.New("http1: the body before this head was not read to its end; close the connection instead")

// ErrNoRoom is returned for a head that is larger than a small page when the
// Reader's Allowance has nothing left for it.
var ErrNoRoom = errors.New("http1: there are as many large heads as may be held")

// errBodyFraming is a mistake of ours that must not pass as an empty body.
var errBodyFraming = errors.New("http1: a body was asked for with a framing that is not its head's")

// maxQuoted is how many bytes of a peer's own text go into a Detail.
const maxQuoted = 40

// quoted renders bytes of the peer for a Detail: ASCII, escaped, capped.
func quoted(b []byte) string {
	if len(b) > maxQuoted {
		return fmt.Sprintf("%+q... (%d bytes)", b[:maxQuoted], len(b))
	}
	return fmt.Sprintf("%+q", b)
}

// fault is what the parsing functions return: a refusal that does not know yet
// which side of a connection it is about. nil is no fault.
type fault struct {
	reason string
	status int
	detail string
}

func faultf(reason string, status int, format string, args ...any) *fault {
	return &fault{reason: reason, status: status, detail: fmt.Sprintf(format, args...)}
}

// refuse turns a fault in a head into the error for the side that is read.
// What is wrong with a response is the upstream's doing and the client is told 502.
func (r *Reader) refuse(f *fault) error {
	if r.response {
		return &Error{Reason: ReasonResponse, Status: 502, Detail: f.detail}
	}
	return &Error{Reason: f.reason, Status: f.status, Detail: f.detail}
}
