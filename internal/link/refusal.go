package link

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Kind is what kind of answer a Refusal is, and what the engine does about it.
type Kind uint8

// The kinds. The zero value is Unavailable: nothing was decided.
const (
	Unavailable     Kind = iota // control cannot answer now; later
	Unauthenticated             // the token is not taken; it is read anew
	Denied                      // the pod gets nothing, or not this
	Invalid                     // the request is not what it must be
	Stale                       // the policy has changed meanwhile
	TooMany                     // too many calls of one pod or address
)

// code is how a kind crosses the wire.
func (k Kind) code() codes.Code {
	switch k {
	case Unauthenticated:
		return codes.Unauthenticated
	case Denied:
		return codes.PermissionDenied
	case Invalid:
		return codes.InvalidArgument
	case Stale:
		return codes.FailedPrecondition
	case TooMany:
		return codes.ResourceExhausted
	default:
		return codes.Unavailable
	}
}

// kindOf is code the other way. What no kind has (a deadline, a connection that
// broke) decided nothing.
func kindOf(c codes.Code) Kind {
	for k := Unauthenticated; k <= TooMany; k++ {
		if k.code() == c {
			return k
		}
	}
	return Unavailable
}

// Refusal is an error in words that the engine is told: one word for the
// reason, what is wrong and how to put it right. It must name nothing that the
// pod may not know.
type Refusal struct {
	Kind   Kind
	Reason string // one word, for metrics and conditions: wrong_audience
	Text   string
}

// Refuse makes a Refusal.
func Refuse(kind Kind, reason, format string, args ...any) *Refusal {
	return &Refusal{Kind: kind, Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// Error is the reason and the text.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Text }

// GRPCStatus is what crosses the wire; package status asks for it.
func (r *Refusal) GRPCStatus() *status.Status { return status.New(r.Kind.code(), r.Error()) }

// told is what the engine hears of err.
func told(err error) error {
	var r *Refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, context.DeadlineExceeded):
		return Refuse(Unavailable, "timeout", "aegrail-control did not get an answer in time; it is asked again")
	default:
		return Refuse(Unavailable, "failed", "aegrail-control could not answer; its log says why")
	}
}

// heard is told the other way: what a call's error says to an engine.
func heard(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	reason, text, ok := strings.Cut(s.Message(), ": ")
	if !ok || strings.ContainsAny(reason, " \t") {
		reason, text = "unreachable", s.Message() // gRPC's own words
	}
	return &Refusal{Kind: kindOf(s.Code()), Reason: reason, Text: text}
}
