package admission

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	kubejson "k8s.io/apimachinery/pkg/util/json"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// validateConnect keeps programs from being run as the engine: aegrail-init marks their sockets, and they can read the token. To read
// the log there is no other place.
func validateConnect(req *admissionv1.AdmissionRequest) error {
	// PodAttachOptions has the same field for the container, and no command.
	var options corev1.PodExecOptions
	if err := kubejson.Unmarshal(req.Object.Raw, &options); err != nil {
		return fmt.Errorf("reading the options of %s: %w", req.SubResource, err)
	}
	switch {
	case options.Container != inject.ContainerEngine && options.Container != inject.ContainerInit:
		return nil
	case req.SubResource == "exec" && options.Container == inject.ContainerEngine && readsLog(options.Command):
		return nil
	default:
		return refusef("%s into %s is not held: it would be let out of the pod as the engine is; use another container (-c), or read the log with %s audit show|tail|verify|prove|report %s/audit.log",
			req.SubResource, options.Container, inject.CommandEngine, inject.PathLog)
	}
}

// takes is what a flag takes for its value.
type takes int

const (
	aSwitch takes = iota + 1 // nothing, or what makes it true or false
	text                     // words that name no file
	aFile                    // a file of the log
	aKey                     // a verifier key, and no file with one
)

// readers are the commands that read the log and write to standard output alone, with those of their flags that open no other file and
// write none. What a command learns to do later is refused until it is here.
func readers() map[string]map[string]takes {
	filter := map[string]takes{"--host": text, "--verdict": text, "--rule": text, "--reason": text, "--agent": text, "--raw": aSwitch, "--json": aSwitch}
	and := func(flags, more map[string]takes) map[string]takes {
		out := maps.Clone(flags)
		maps.Copy(out, more)
		return out
	}
	against := map[string]takes{"--anchor": aFile, "--key": aKey}
	return map[string]map[string]takes{
		"show":   and(filter, map[string]takes{"--since": text, "--until": text, "--seq": text}),
		"tail":   and(filter, map[string]takes{"--lines": text, "-n": text}),
		"verify": and(against, map[string]takes{"--proof": aFile}),
		"prove":  and(against, map[string]takes{"--seq": text}),
		"report": and(against, map[string]takes{"--html": aSwitch, "--format": text, "--since": text, "--until": text, "--unverified": aSwitch}),
	}
}

// readsLog reports that command reads the audit log and no other file, and writes none. It reads the flags as github.com/spf13/pflag does, and
// refuses those that pflag and a reader could take differently: a value that begins with a dash has to follow a =.
func readsLog(command []string) bool {
	if len(command) < 3 || command[0] != inject.CommandEngine || command[1] != "audit" {
		return false
	}
	flags, known := readers()[command[2]]
	if !known {
		return false
	}
	for rest := command[3:]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--": // all that follows are files
			return !slices.ContainsFunc(rest, func(file string) bool { return !logFile(file) })
		case !strings.HasPrefix(arg, "-"):
			if !logFile(arg) {
				return false
			}
		default:
			name, value, has := cut(arg)
			kind := flags[name]
			if !has && kind != aSwitch {
				if len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
					return false
				}
				value, rest = rest[0], rest[1:]
			}
			if kind == 0 || kind == aFile && !logFile(value) || kind == aKey && !verifierKey(value) {
				return false
			}
		}
	}
	return true
}

// cut parts a flag from the value in the same word, if there is one: --name=value, -n=value or -nvalue.
func cut(arg string) (name, value string, has bool) {
	if strings.HasPrefix(arg, "--") || len(arg) < 3 {
		return strings.Cut(arg, "=")
	}
	return arg[:2], strings.TrimPrefix(arg[2:], "="), true
}

// logFile reports that arg is a file of the log. The key that signs it is beside it.
func logFile(arg string) bool {
	return path.Clean(arg) == arg && strings.HasPrefix(arg, inject.PathLog+"/") && !strings.HasSuffix(arg, ".key")
}

// verifierKey reports that arg is NAME+ID+KEY. What is none is taken for a file's name, so the name has no slash; the key is base64.
func verifierKey(arg string) bool {
	name, rest, _ := strings.Cut(arg, "+")
	id, key, _ := strings.Cut(rest, "+")
	_, err := strconv.ParseUint(id, 16, 32)
	return name != "" && !strings.Contains(name, "/") && err == nil && key != ""
}
