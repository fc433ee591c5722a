package identity

import (
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

func TestIDIsWhatIsVouchedFor(t *testing.T) {
	for _, row := range []struct {
		what string
		p    Principal
		want string
	}{
		{"nobody", Principal{}, ""},
		{"a laptop's agent", Principal{AgentIdentity: "my-agent"}, "my-agent"},
		{"a pod's", Principal{Namespace: "support", ServiceAccount: "bot", Pod: "bot-1"}, "support/bot"},
		{"a pod's, whatever it claims", Principal{Namespace: "support", ServiceAccount: "bot", Claimed: "admin/root"}, "support/bot"},
		{"a pod's, whatever the flag says", Principal{Namespace: "support", ServiceAccount: "bot", AgentIdentity: "flag"}, "support/bot"},
		{"a claim alone", Principal{Claimed: "admin/root"}, ""},
	} {
		if got := row.p.ID(); got != row.want {
			t.Errorf("%s: %q, want %q", row.what, got, row.want)
		}
	}
}

func TestFixedNamesEveryConnection(t *testing.T) {
	want := Principal{AgentIdentity: "my-agent"}
	for _, kind := range []intake.Kind{intake.Connect, intake.Plain, intake.Transparent} {
		if got, err := Fixed(want)(intake.Flow{Kind: kind, ProxyAuthorization: "Basic eDp5"}); got != want || err != nil {
			t.Errorf("%s: %+v, %v", kind, got, err)
		}
	}
}
