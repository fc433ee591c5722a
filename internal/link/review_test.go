package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	enginev1 "github.com/arpitcoder/aegrail-engine/api/engine/v1"
)

// vouching is a control that serves gateways.
type vouching struct {
	*control
	callers map[string]Pod // :: token or address
}

func (v *vouching) Review(_ context.Context, _ Pod, who Caller) (Pod, error) {
	key := who.Token
	if key == "" {
		key = who.Address.String()
	}
	pod, ok := v.callers[key]
	switch {
	case key == "expired":
		return Pod{}, Refuse(Unauthenticated, "bad_token", "the token has expired")
	case !ok:
		return Pod{}, Refuse(Denied, "unknown_caller", "no pod of ours; mount a token for audience aegrail-gateway")
	}
	return pod, nil
}

var gateway = Pod{Namespace: "support", Name: "gateway-1", UID: "uid-9", Gateway: true}

func startVouching(t *testing.T, o ServerOptions) *served {
	t.Helper()
	c := newControl(t)
	s := &served{control: c, address: "localhost:0", backend: &vouching{control: c, callers: map[string]Pod{
		"the bot's": bot, "10.0.0.7": bot, "another's": {Namespace: "billing", ServiceAccount: "pay", Name: "pay-1"}, "nobody's": {Namespace: "support"},
	}}}
	s.begin(t, o)
	s.knows("the gateway's", gateway)
	s.knows("its token", bot)
	s.rules(gateway.UID, Policy{Revision: "all", Template: permits(t, "a.example")})
	return s
}

func TestAGatewayIsToldWhoseAConnectionIs(t *testing.T) {
	s := startVouching(t, ServerOptions{})
	p := runs(t, s, func(o *ClientOptions) {
		o.Gateway, o.Token = true, func() (string, error) { return "the gateway's", nil }
	})
	p.told(t, "authority for a.example, policy all of support/")
	client := p.client
	for what, row := range map[string]struct {
		token, addr string
		want        string // "": it is the bot's
	}{
		"by its token":                     {"the bot's", "10.0.0.9", ""},
		"by its address":                   {"", "10.0.0.7", ""},
		"by its address as IPv6 has it":    {"", "::ffff:10.0.0.7", ""},
		"with a token that nobody knows":   {"guessed", "10.0.0.7", "unknown_caller: "},
		"from an address that nobody does": {"", "10.0.0.9", "unknown_caller: "},
		"of another namespace":             {"another's", "10.0.0.9", "another_namespace: "},
		"of nobody":                        {"nobody's", "10.0.0.9", "another_namespace: "},
		"with a token that is over":        {"expired", "10.0.0.9", "bad_token: "},
	} {
		got, err := client.Review(t.Context(), row.token, netip.MustParseAddr(row.addr))
		var r *Refusal
		switch {
		case row.want == "" && (err != nil || got.Namespace != "support" || got.ServiceAccount != "bot" || got.Name != "bot-1" || got.Claimed != "helper"):
			t.Errorf("%s: %+v, %v", what, got, err)
		case row.want != "" && (!errors.As(err, &r) || r.Kind != Denied || !strings.HasPrefix(err.Error(), row.want)):
			t.Errorf("%s: %v, want %s", what, err, row.want)
		}
	}
	if n := len(s.refusals()); n != 5 {
		t.Errorf("%d refusals were recorded", n)
	}
}

// leaving is a control that takes nobody for anybody any more.
type leaving struct{ *vouching }

func (leaving) Authenticate(context.Context, string) (Pod, error) {
	return Pod{}, fmt.Errorf("looking for the pod: %w", Refuse(Denied, "pod_ending", "the pod has ended"))
}

// TestAGatewayIsNotToldOfItselfAsOfACaller: it would refuse who has done nothing.
func TestAGatewayIsNotToldOfItselfAsOfACaller(t *testing.T) {
	c := newControl(t)
	s := &served{control: c, address: "localhost:0", backend: leaving{&vouching{control: c}}}
	s.begin(t, ServerOptions{})
	_, err := enginev1.NewLinkClient(s.dial(t)).Review(as(t, "the gateway's"), &enginev1.ReviewRequest{Token: "the bot's"})
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "pod_ending: the pod has ended") {
		t.Errorf("it is told %v", err)
	}
	if all := s.refusals(); len(all) != 1 || !strings.Contains(all[0].Err.Error(), "looking for the pod") {
		t.Errorf("recorded: %v", all)
	}
}

// K8, the other way: an engine in a pod that was taken over asks whose a token is.
func TestK08ASidecarIsToldNothingOfOthers(t *testing.T) {
	s := startVouching(t, ServerOptions{})
	c := enginev1.NewLinkClient(s.dial(t))
	for _, req := range []*enginev1.ReviewRequest{{Token: "the bot's"}, {Address: "10.0.0.7"}, {}} {
		if got, err := c.Review(as(t, "its token"), req); status.Code(err) != codes.PermissionDenied || got != nil {
			t.Errorf("%v: %v, %v", req, got, err)
		}
	}
	if _, err := c.Review(as(t, "guessed"), &enginev1.ReviewRequest{Token: "the bot's"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("by nobody: %v", err)
	}
	if n := len(s.refusals()); n != 4 {
		t.Errorf("%d refusals were recorded", n)
	}
}

func TestAReviewNamesOneCaller(t *testing.T) {
	s := startVouching(t, ServerOptions{})
	c := enginev1.NewLinkClient(s.dial(t))
	for _, req := range []*enginev1.ReviewRequest{{}, {Address: "bot-1"}, {Token: "the bot's", Address: "10.0.0.7"}, {Token: strings.Repeat("x", maxToken+1)}} {
		if _, err := c.Review(as(t, "the gateway's"), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%.80v: %v", req, err)
		}
	}
}

func TestAControlWithoutGatewaysKnowsNoCaller(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	s.knows("the gateway's", gateway)
	if _, err := enginev1.NewLinkClient(s.dial(t)).Review(as(t, "the gateway's"), &enginev1.ReviewRequest{Token: "the bot's"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("%v", err)
	}
}

func TestAnEngineIsWhatControlTakesItFor(t *testing.T) {
	s := startVouching(t, ServerOptions{})
	s.rules(bot.UID, Policy{Revision: "r"})
	p := runs(t, s, func(o *ClientOptions) { o.Gateway = true })
	until(t, "a report", func() bool { return strings.Contains(p.fault(PartPolicy), "for a pod of one agent") })
	q := runs(t, s, func(o *ClientOptions) { o.Token = func() (string, error) { return "the gateway's", nil } })
	until(t, "a report", func() bool { return strings.Contains(q.fault(PartPolicy), "whose pod this is") })
	if p.story()+q.story() != "" {
		t.Error("something is in force")
	}
}
