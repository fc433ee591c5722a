package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

func policyCommand(w *world) *cobra.Command {
	return group(&cobra.Command{Use: "policy", Short: "Check, explain, test, replay and suggest policies"},
		policyCheckCommand(w), policyExplainCommand(w), policyTestCommand(w), policyReplayCommand(w), policySuggestCommand(w))
}

func policyCheckCommand(w *world) *cobra.Command {
	var served bool
	c := &cobra.Command{
		Use:   "check FILE…",
		Short: "Load policy files and say what is wrong with them",
		Long: "Load each file as serve would. What does not load is printed with line, column, what was\n" +
			"expected and the fix; rules that can never match, or that an allowlist widens, are warned of.",
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			var failed bool
			for _, name := range args {
				file := policyFile{name: name, options: policy.Options{AnyAgent: !served}, served: served}
				c, err := file.load()
				if err != nil {
					failed = true
					for _, fault := range faults(err) {
						fmt.Fprintln(w.stderr, fault)
					}
					continue
				}
				rules, hosts := 0, 0
				for _, d := range c.docs {
					rules += len(d.Spec.Rules)
					hosts += len(d.Spec.Allowlist)
				}
				for _, warning := range c.warnings {
					fmt.Fprintf(w.stdout, "%s\n", warning.String())
				}
				fmt.Fprintf(w.stdout, "%s: ok, %s, %s, %s in allowlists, %s\n", name,
					plural(len(c.docs), "policy"), plural(rules, "rule"), plural(hosts, "host"), c.set.Revision())
			}
			if failed {
				return &exitError{code: exitUsage}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&served, "served", false, "load each file as aegrail-control would: every policy names agents, and none a file")
	return c
}

// mustLoad loads the policy that a command cannot do without.
func mustLoad(c *cobra.Command, name string) (compiled, error) {
	if name == "" {
		return compiled{}, usagef(c, "--policy is missing")
	}
	file := policyFile{name: name, options: policy.Options{AnyAgent: true}}
	return file.load()
}

func policyExplainCommand(w *world) *cobra.Command {
	var file, agent, body string
	var headers []string
	c := &cobra.Command{
		Use:   "explain --policy FILE METHOD URL",
		Short: "Say what the policy decides on a request, and why",
		Example: "  aegrail-engine policy explain --policy policy.yaml POST https://api.openai.com/v1/chat/completions\n" +
			"  aegrail-engine policy explain --policy policy.yaml --agent support/support-bot GET https://pypi.pkg.example/simple/",
		Args: takes(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			if strings.ContainsAny(args[0], ":/") {
				return usagef(c, "%q is no method: METHOD comes before URL", args[0])
			}
			rules, err := mustLoad(c, file)
			if err != nil {
				return err
			}
			q := question{agent: parseAgent(agent), method: strings.ToUpper(args[0]), url: args[1], headers: headers}
			if c.Flags().Changed("body") {
				if q.body, err = bodyArgument(body); err != nil {
					return badInput(err)
				}
			}
			a, err := q.ask(rules.set)
			if err != nil {
				return badInput(err)
			}
			a.print(w.stdout)
			return nil
		},
	}
	f := c.Flags()
	f.Var(&onePolicy{&file}, "policy", "policy `FILE`")
	f.StringVar(&agent, "agent", "", "who asks: `NAMESPACE/SERVICEACCOUNT`, or the name of a laptop's agent (the default)")
	f.StringArrayVarP(&headers, "header", "H", nil, "a request `HEADER`, as in \"Content-Type: application/json\"")
	f.StringVar(&body, "body", "", "the request's body, or @`FILE`")
	return c
}

func bodyArgument(s string) ([]byte, error) {
	if name, ok := strings.CutPrefix(s, "@"); ok {
		return readFile("body", name)
	}
	return []byte(s), nil
}

func (a answer) print(w io.Writer) {
	fmt.Fprintln(w, strings.TrimSpace(a.word()+"  "+a.asked))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-7s %s\n", name, value)
		}
	}
	line("reason", string(a.Reason))
	line("policy", a.Policy)
	line("rule", a.Rule)
	if a.NeedBody {
		line("note", "a rule reads the body: give it with --body")
	}
	if a.tunnel && a.Verdict == policy.Allow {
		line("note", "passthrough: what is said inside is neither judged nor seen")
	}
	if a.Observed {
		line("note", "denied by the policy, let pass by mode: observe")
	}
	for _, l := range a.Limits {
		line("limit", describeLimit(l))
	}
	line("hint", a.Detail)
	for _, t := range a.trace {
		fmt.Fprintf(w, "  - %s %s/%s (%s:%d): %s\n", t.Action, t.Policy, t.Rule, t.File, t.Line, t.Why)
	}
	if a.others > 0 {
		fmt.Fprintf(w, "  - %s for other hosts\n", plural(a.others, "rule"))
	}
}

func describeLimit(l policy.Limit) string {
	var parts []string
	if l.Rate > 0 {
		parts = append(parts, v1alpha1.Rate{Count: l.Rate, Per: l.Per}.String())
	}
	if l.MaxRequests > 0 {
		parts = append(parts, fmt.Sprintf("%d requests in all", l.MaxRequests))
	}
	return fmt.Sprintf("%s (%s)", strings.Join(parts, ", "), l.Scope)
}

func policyTestCommand(w *world) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "test --policy FILE [CASES…]",
		Short: "Try a policy on the cases beside it",
		Long: "Try a policy on cases, and exit 1 if one ends otherwise. Without CASES they are in the file\n" +
			"beside the policy: policy.cases.yaml for policy.yaml. It is a list:\n\n" +
			"  - name: the bot may chat\n" +
			"    agent: support/support-bot\n" +
			"    method: POST\n" +
			"    url: https://api.openai.com/v1/chat/completions\n" +
			"    body: '{\"model\": \"gpt-5\"}'\n" +
			"    want: allow\n" +
			"    rule: openai-chat\n" +
			"  - {name: and nothing else, method: GET, url: https://api.openai.com/v1/files, want: deny, reason: path_not_allowed}",
		RunE: func(c *cobra.Command, args []string) error {
			rules, err := mustLoad(c, file)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				ext := filepath.Ext(file)
				args = []string{strings.TrimSuffix(file, ext) + ".cases" + ext}
			}
			return runCases(w, rules, file, args)
		},
	}
	c.Flags().Var(&onePolicy{&file}, "policy", "policy `FILE`")
	return c
}

func runCases(w *world, rules compiled, file string, names []string) error {
	ran, failed := 0, 0
	for _, name := range names {
		cases, err := readCases(name)
		if err != nil {
			return badInput(err)
		}
		for _, tc := range cases {
			ran++
			complaint, err := tryCase(tc, rules.set)
			if err != nil {
				return badInput(fmt.Errorf("%s:%d: %s: %w", name, tc.Line, tc.Name, err))
			}
			if complaint != "" {
				failed++
				fmt.Fprintf(w.stdout, "%s:%d: %s: %s\n", name, tc.Line, tc.Name, complaint)
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s failed", failed, plural(ran, "case"))
	}
	fmt.Fprintf(w.stdout, "%s: %s passed\n", file, plural(ran, "case"))
	return nil
}

func readCases(name string) ([]v1alpha1.Case, error) {
	data, err := readFile("cases", name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; write it, or name the cases after the policy", err)
	}
	if err != nil {
		return nil, err
	}
	return v1alpha1.ParseCases(name, data)
}

// tryCase returns what differs from what the case wants, or "".
func tryCase(tc v1alpha1.Case, set *policy.Set) (string, error) {
	q := question{agent: parseAgent(tc.Agent), method: tc.Method, url: tc.URL, body: []byte(tc.Body)}
	for _, name := range slices.Sorted(maps.Keys(tc.Headers)) {
		q.headers = append(q.headers, name+": "+tc.Headers[name])
	}
	a, err := q.ask(set)
	if err != nil {
		return "", err
	}
	return policy.CheckCase(tc, a.Decision), nil
}
