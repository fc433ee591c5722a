package admission

import (
	"fmt"
	"path"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	kubejson "k8s.io/apimachinery/pkg/util/json"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// validateConnect keeps programs from being run as the engine: its user is let out, and it can read the token. To read the log
// there is no other place.
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
		return refusef("%s into %s runs as a user whose connections are not held; use another container (-c), or read the log with %s audit show|tail|verify|prove|report %s/audit.log",
			req.SubResource, options.Container, inject.CommandEngine, inject.PathLog)
	}
}

// readsLog reports that command reads the audit log and no other file.
func readsLog(command []string) bool {
	if len(command) < 3 || command[0] != inject.CommandEngine || command[1] != "audit" {
		return false
	}
	if !slices.Contains([]string{"show", "tail", "verify", "prove", "report"}, command[2]) {
		return false
	}
	return !slices.ContainsFunc(command[3:], func(arg string) bool {
		return strings.Contains(arg, "/") && !logFile(arg)
	})
}

// logFile reports that arg is a file of the log. The key that signs it is beside it.
func logFile(arg string) bool {
	return path.Clean(arg) == arg && strings.HasPrefix(arg, inject.PathLog+"/") && !strings.HasSuffix(arg, ".key")
}
