package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand(w *world) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the revision and the Go release it was built with",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			fmt.Fprintf(w.stdout, "aegrail-engine %s", b.version)
			if b.revision != "" {
				fmt.Fprintf(w.stdout, " (%s)", b.revision)
			}
			fmt.Fprintf(w.stdout, " %s %s/%s\n", b.goVersion, runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

// build is what the Go tool stamped into the binary. Nothing is set by the
// linker, so `go install` and the image say the same.
type build struct{ version, revision, goVersion string }

func readBuild() build {
	b := build{version: "(devel)", goVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" {
		b.version = v
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if b.revision != "" {
		b.revision += dirty
	}
	return b
}
