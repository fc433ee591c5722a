package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/arpitcoder/aegrail-engine/internal/doctor"
)

// examine runs the checks and tells of them.
func examine(ctx context.Context, o *doctorOptions, changed func(flag string) bool, stdout io.Writer) error {
	o.ofExec(changed, doctor.Listens)
	c := doctor.Config{
		Transparent: o.transparent, DNS: o.dns, Forward: o.forward, Admin: o.admin, EngineUID: o.engineUID, Alone: o.alone,
		Environ: os.Environ(), Advisory: o.advisory, Host: o.host, Patience: o.patience,
	}
	if o.pid != 0 {
		environ, err := doctor.Environ(o.pid)
		if err != nil {
			return badInput(fmt.Errorf("--pid %d: %w; run as the user of that process, with its processes shared", o.pid, err))
		}
		c.PID, c.Environ = o.pid, environ
	}
	for _, name := range o.policies {
		full, err := filepath.Abs(name)
		if err == nil {
			_, err = os.Stat(full)
		}
		if err != nil {
			return badInput(err)
		}
		c.Policies = append(c.Policies, full)
	}
	r, err := doctor.Run(ctx, c)
	if err != nil {
		return badInput(err)
	}
	return tell(stdout, o.asJSON, r.Enforced(), r, r.Text(), r.Open)
}
