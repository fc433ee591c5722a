package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/isolation"
)

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	transparent, dns, forward, admin uint16
	engineUID                        uint32
	policies                         []string
	host                             string
	pid                              int
	advisory, asJSON                 bool
	alone                            bool // as exec's command
	patience                         time.Duration
}

func doctorCommand(w *world) *cobra.Command {
	o := new(doctorOptions)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Try the ways around the engine, from where an agent is",
		Long: "Try the ways around the engine from where an agent is, and say for each whether it is held.\n\n" +
			"Run it as the agent: in its container, as the command of exec, or with the engine's image in an\n" +
			"ephemeral container beside it, as the agent's user and with --pid for the agent's process. It\n" +
			"sends to addresses of documentation (192.0.2.0/24, 2001:db8::/32), to the engine's ports on\n" +
			"this pod's own addresses and to the configured resolver. Each try that the engine judges leaves\n" +
			"a refusal in its log, for names below aegrail.invalid.\n\n" +
			"A line for each check: held, or OPEN and what to change. Exit code 0: all held; 1: something is\n" +
			"open; 2: it could not run.",
		Example: "  aegrail-engine doctor\n" +
			"  aegrail-engine exec --policy policy.yaml -- aegrail-engine doctor --policy policy.yaml\n" +
			"  kubectl debug POD --image IMAGE --target AGENT --profile restricted -- /aegrail-engine doctor --pid 1",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return examine(c.Context(), o, c.Flags().Changed, w.stdout)
		},
	}
	f := c.Flags()
	f.Uint16Var(&o.transparent, "transparent-port", 15001, "`PORT` of the engine's --transparent-listen; as exec's command, exec's")
	f.Uint16Var(&o.dns, "dns-port", 15053, "`PORT` of the engine's --dns-listen; likewise")
	f.Uint16Var(&o.forward, "forward-port", 15080, "`PORT` of the engine's forward proxy; 0: there is none; likewise")
	f.Uint16Var(&o.admin, "admin-port", 15020, "`PORT` of the engine's --admin-listen; 0: there is none; likewise")
	f.Uint32Var(&o.engineUID, "engine-uid", 0, "`UID` that the engine runs as; 0: who listens on the transparent port")
	f.IntVar(&o.pid, "pid", 0, "`PID` of the agent's process, from an ephemeral container that shares its processes (kubectl debug --target): its files, environment and privileges are looked at")
	f.StringSliceVar(&o.policies, "policy", nil, "policy `FILES` that the agent must not be able to write")
	f.StringVar(&o.host, "host", "", "`HOST` that the policy allows on port 443: the bundle must verify the engine's certificate for it; nothing is asked of the host")
	f.BoolVar(&o.advisory, "advisory", false, "the pod's enforcement is advisory: programs must find the engine by their proxy variables")
	f.BoolVar(&o.asJSON, "json", false, "print the findings as JSON")
	f.DurationVar(&o.patience, "timeout", 3*time.Second, "`TIME` to wait for each answer")
	return c
}

// ofExec takes exec's ports where they are what is listened on.
func (o *doctorOptions) ofExec(changed func(flag string) bool, listens func(port uint16) bool) {
	forward, transparent, dns := isolation.Ports()
	if listens(o.transparent) || !listens(transparent) {
		return
	}
	o.alone = true
	for flag, port := range map[string]struct {
		to    *uint16
		value uint16
	}{
		"transparent-port": {&o.transparent, transparent}, "dns-port": {&o.dns, dns},
		"forward-port": {&o.forward, forward}, "admin-port": {&o.admin, 0},
	} {
		if !changed(flag) {
			*port.to = port.value
		}
	}
}

// unheld is said where an agent's connections need not end at the engine.
const unheld = "NOT ENFORCED: an agent that ignores the proxy variables goes around the engine"

// tell prints a report and says by its error whether everything is held.
func tell(stdout io.Writer, asJSON, enforced bool, report any, text string, open int) error {
	if asJSON {
		out, err := json.MarshalIndent(struct {
			Enforced bool `json:"enforced"`
			Report   any  `json:"report"`
		}{enforced, report}, "", "  ")
		if err != nil {
			return fmt.Errorf("printing the findings: %w", err)
		}
		text = string(out) + "\n"
	} else if !enforced {
		text += unheld + "\n"
	}
	if _, err := io.WriteString(stdout, text); err != nil {
		return fmt.Errorf("printing the findings: %w", err)
	}
	if open > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}
