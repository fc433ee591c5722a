//go:build netns

package isolation

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/arpitcoder/aegrail-engine/internal/redirect"
)

// faultArg is the first argument of a child that makes one of the faults below
// in its namespaces and then tries them as setup does.
const faultArg = "faulty-child"

// faults are ways to have rules that do not hold. The probe must see each by
// what comes of it, whatever the rules' text says.
func faults() map[string]struct {
	rules func() redirect.Rules
	then  func(*nftables.Conn)
	says  string // "" for the rules as they are
} {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "aegrail"}
	return map[string]struct {
		rules func() redirect.Rules
		then  func(*nftables.Conn)
		says  string
	}{
		"none":     {rules, func(*nftables.Conn) {}, ""},
		"no table": {rules, func(c *nftables.Conn) { c.FlushRuleset() }, "did not reach the engine's port"},
		"nothing is redirected": {rules, func(c *nftables.Conn) {
			c.FlushChain(&nftables.Chain{Name: "divert", Table: table})
		}, "did not reach the engine's port"},
		"nothing is dropped": {rules, func(c *nftables.Conn) {
			c.DelChain(&nftables.Chain{Name: "confine", Table: table})
		}, "was not dropped"},
		"another port": {func() redirect.Rules { r := rules(); r.Transparent++; return r }, func(*nftables.Conn) {}, "did not reach the engine's port"},
		"the forward proxy's port": {func() redirect.Rules { r := rules(); r.Transparent = forwardPort; return r }, func(*nftables.Conn) {},
			"went somewhere else than to the engine"},
		"another resolver": {func() redirect.Rules { r := rules(); r.DNS++; return r }, func(*nftables.Conn) {}, "did not reach the resolver"},
	}
}

// faultyChild is such a child: fault by name.
func faultyChild(name string) error {
	file := os.NewFile(controlFD, "control")
	c, err := controlOf(file)
	if err != nil {
		return err
	}
	if _, _, err := c.receive(time.Time{}); err != nil {
		return err
	}
	err = tryFault(name)
	if err == nil {
		err = errors.New("held")
	}
	return c.send(message{Failed: err.Error()})
}

func tryFault(name string) error {
	f := faults()[name]
	if err := makeNetwork(); err != nil {
		return err
	}
	s, err := openSockets()
	if err != nil {
		return err
	}
	if err := f.rules().Apply(); err != nil {
		return err
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	f.then(conn)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("making the fault: %w", err)
	}
	return s.probe()
}

func TestE01TheProbeSeesRulesThatDoNotHold(t *testing.T) {
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // what is missing is waited for
			n, err := Start([]string{"test", faultArg, name})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			_, err = n.Prepare(Files{})
			want := f.says
			if want == "" {
				want = "held"
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}
