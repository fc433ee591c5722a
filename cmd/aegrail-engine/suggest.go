package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

func policySuggestCommand(w *world) *cobra.Command {
	return &cobra.Command{
		Use:   "suggest LOG…",
		Short: "Write the least policy that allows what was seen",
		Long: "Write the least policy that allows what the logs say was allowed or observed; what was denied\n" +
			"is listed in comments. Segments of a path that look like an id become \"*\". Read it before\n" +
			"you use it: it allows what the agent did, not what it should do. A good log to start from is\n" +
			"that of a run with --observe.",
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			s := suggestion{agents: map[identity.Principal]sites{}, denied: map[string]int64{}, pending: map[string]*visit{}}
			if err := readLogs(args, s.add); err != nil {
				return err
			}
			if len(s.agents) == 0 {
				return fmt.Errorf("nothing was allowed or observed in these logs, so there is nothing to suggest; run with --observe first")
			}
			var b strings.Builder
			s.write(&b)
			// What is suggested must load: a log can hold hosts and paths that no
			// rule can name.
			if _, err := v1alpha1.Parse("the suggestion", []byte(b.String())); err != nil {
				return fmt.Errorf("these logs hold what a policy cannot name: %w", err)
			}
			_, err := io.WriteString(w.stdout, b.String())
			return err
		},
	}
}

// suggestion gathers what was seen.
type suggestion struct {
	agents  map[identity.Principal]sites
	denied  map[string]int64  // :: "GET https://… (reason)" -> times
	pending map[string]*visit // :: session and request id -> where its completion belongs
}

// sites are what one agent reached.
type sites map[site]map[visitKey]*visit

// site is what one rule can be for.
type site struct {
	scheme, host string
	port         uint16
}

type visitKey struct{ method, pattern string }

// visit is a method and a path pattern at a site, with what completions add.
type visit struct {
	count       int64
	general     bool // an id-like segment became "*"
	quirks      quirks
	websocket   bool
	addresses   map[netip.Addr]bool // private ones, which a rule has to name
	guarded     bool                // refused by the address guard
	hiddenPaths bool                // recorded as a hash: nothing to suggest from
}

type quirks struct{ encodedSlash, semicolon, doubleSlash bool }

func (s *suggestion) add(l logged) error {
	switch {
	case l.Phase == audit.PhaseComplete.String():
		s.complete(l)
	case !l.isDecision():
	case !l.allowed():
		s.denied[strings.TrimSpace(fmt.Sprintf("%s (%s)", l.request(), l.Reason))] += l.times()
	default:
		v := s.visit(l)
		v.count += l.times()
		s.pending[l.Session+l.ID] = v
	}
	return nil
}

// complete adds what was only known at the end.
func (s *suggestion) complete(l logged) {
	v := s.pending[l.Session+l.ID]
	if v == nil {
		return
	}
	delete(s.pending, l.Session+l.ID)
	v.websocket = v.websocket || l.StatusCode == 101
	v.guarded = v.guarded || l.Reason == upstream.ReasonAddressDenied
	if ap, err := netip.ParseAddrPort(l.Upstream); err == nil && inside(ap.Addr()) {
		if v.addresses == nil {
			v.addresses = map[netip.Addr]bool{}
		}
		v.addresses[ap.Addr().Unmap()] = true
	}
}

// inside reports an address that is refused unless a rule names it. It need
// not know all of them: what it misses, the engine refuses with its name.
func inside(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || netip.MustParsePrefix("100.64.0.0/10").Contains(a)
}

func (s *suggestion) visit(l logged) *visit {
	who := l.principal()
	if who.Namespace == "" {
		who = identity.Principal{} // a laptop: agents are left out
	}
	if s.agents[who] == nil {
		s.agents[who] = sites{}
	}
	at := site{l.Scheme, l.Host, l.Port}
	if s.agents[who][at] == nil {
		s.agents[who][at] = map[visitKey]*visit{}
	}
	pattern, general := generalise(l.Path)
	switch {
	case l.PathPattern != "":
		pattern = l.PathPattern
	case l.PathSHA256 != "":
		pattern = "/**"
	}
	key := visitKey{l.Method, pattern}
	v := s.agents[who][at][key]
	if v == nil {
		v = &visit{}
		s.agents[who][at][key] = v
	}
	v.general = v.general || general
	v.hiddenPaths = v.hiddenPaths || l.PathSHA256 != ""
	v.quirks.encodedSlash = v.quirks.encodedSlash || strings.Contains(l.Path, "%2F")
	v.quirks.semicolon = v.quirks.semicolon || strings.Contains(l.Path, ";")
	v.quirks.doubleSlash = v.quirks.doubleSlash || strings.Contains(l.Path, "//")
	return v
}

// generalise turns segments that look like an id into "*".
func generalise(path string) (pattern string, general bool) {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		switch {
		case s == "*" || s == "**":
			segments[i] = strings.ReplaceAll(s, "*", "%2A") // a literal one
		case looksLikeID(s):
			segments[i], general = "*", true
		}
	}
	return strings.Join(segments, "/"), general
}

// looksLikeID reports a number, a UUID, eight or more hex digits with a
// number among them, or a long word with digits in it (msg_01XFDUDYJgAACzvn,
// a date in a version is none).
func looksLikeID(s string) bool {
	if strings.Contains(s, "%2F") || !strings.ContainsAny(s, "0123456789") {
		return false
	}
	return idShape.MatchString(s)
}

var idShape = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`\d+`,
	`[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`,
	`[0-9a-fA-F]{8,}`,
	`(?:[A-Za-z]+[_-])?[0-9A-Za-z]{16,}`,
}, "|") + `)$`)

func (s *suggestion) write(w io.Writer) {
	fmt.Fprintln(w, "# Suggested by aegrail-engine from an audit log: it allows what was seen, and more where a comment says so.")
	fmt.Fprintln(w, "# Read it before you use it.")
	agents := slices.SortedFunc(maps.Keys(s.agents), func(a, b identity.Principal) int { return strings.Compare(a.ID(), b.ID()) })
	for i, who := range agents {
		if i > 0 {
			fmt.Fprintln(w, "---")
		}
		name := "suggested"
		if who.Namespace != "" {
			name = slug(who.Namespace + "-" + who.ServiceAccount)
		}
		fmt.Fprintf(w, "apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec:\n", v1alpha1.APIVersion, v1alpha1.Kind, name)
		if who.Namespace != "" {
			fmt.Fprintf(w, "  agents:\n    namespaces: [%s]\n    serviceAccounts: [%s]\n", quoteYAML(who.Namespace), quoteYAML(who.ServiceAccount))
		}
		fmt.Fprintln(w, "  rules:")
		names := map[string]int{}
		for _, at := range slices.SortedFunc(maps.Keys(s.agents[who]), compareSites) {
			for _, r := range toRules(s.agents[who][at]) {
				r.write(w, at, names)
			}
		}
	}
	if len(s.denied) > 0 {
		fmt.Fprintln(w, "# Denied, and not in this policy:")
		for _, what := range slices.Sorted(maps.Keys(s.denied)) {
			fmt.Fprintf(w, "#   %s, %s\n", printable(what), times(s.denied[what]))
		}
	}
}
