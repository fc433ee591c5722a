package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"unsafe"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// manyRules has n allow rules with a host and a path of their own.
func manyRules(tb testing.TB, n int) *policy.View {
	tb.Helper()
	doc := v1alpha1.AgentPolicy{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "many"}}
	for i := range n {
		doc.Spec.Rules = append(doc.Spec.Rules, v1alpha1.Rule{
			Name:    fmt.Sprintf("rule%06d", i),
			Hosts:   []string{fmt.Sprintf("service%06d.tools.example.com", i)},
			Methods: []string{"GET", "POST"},
			Paths:   []string{fmt.Sprintf("/v1/tenants/%06d/items", i)},
		})
	}
	set, _, err := policy.Compile([]v1alpha1.AgentPolicy{doc}, policy.Options{AnyAgent: true})
	if err != nil {
		tb.Fatal(err)
	}
	return set.For(identity.Principal{AgentIdentity: "bench"})
}

// shapedRequest is one request whose host and path can be made those of any
// rule without touching memory of that rule: as the parser leaves it, a request
// is in the cache, and what misses is the policy's own.
type shapedRequest struct {
	req        canon.Request
	host, path []byte
}

func newShapedRequest() *shapedRequest {
	s := &shapedRequest{host: []byte("service000000.tools.example.com"), path: []byte("/v1/tenants/000000/items")}
	s.req.Scheme = canon.HTTPS
	s.req.Authority = canon.Authority{Host: unsafe.String(&s.host[0], len(s.host)), Port: 443}
	s.req.Method = "POST"
	s.req.Path = s.path
	return s
}

func (s *shapedRequest) shape(i int) {
	var digits [8]byte
	text := strconv.AppendInt(digits[:0], int64(1_000_000+i), 10)[1:]
	copy(s.host[len("service"):], text)
	copy(s.path[len("/v1/tenants/"):], text)
}

// BenchmarkDecide goes through the rules in random order, so that what it
// measures at 10 000 rules has the cache misses of a policy that is large.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			v := manyRules(b, n)
			s := newShapedRequest()
			random := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			for b.Loop() {
				s.shape(random.IntN(n))
				if d := v.Decide(&s.req); d.Verdict != policy.Allow {
					b.Fatalf("%s %s: %s", s.host, s.path, d.Reason)
				}
			}
		})
	}
}
