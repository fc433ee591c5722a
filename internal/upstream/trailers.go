package upstream

import (
	"fmt"
	"net/http"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// checkTrailer refuses a trailer of the request that would change, at an origin
// which merges trailers into the head, what was judged there (row S18), what a
// condition looked at, or what the rule put there or took away.
func checkTrailer(p *policy.Permit, name []byte) error {
	if http1.ForbiddenTrailer(name) || p.Edits(name) || p.Tests(name) {
		return fail(http1.ReasonTrailer, http.StatusBadRequest, fmt.Sprintf("%.40q is not accepted as a trailer of this request", name), nil)
	}
	return nil
}

// trailersOf returns the trailers of body, which has ended, if all may be sent.
func trailersOf(p *policy.Permit, body Body) ([]http1.Field, error) {
	fields := body.Trailers()
	for i := range fields {
		if err := checkTrailer(p, fields[i].Name); err != nil {
			return nil, err
		}
	}
	return fields, nil
}
