package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// maxPod bounds a pod on standard input; the API server takes 3 MiB.
const maxPod = 3 << 20

// renderCommand prints what injection makes of a pod, for review and for
// clusters in which nobody may run webhooks.
func renderCommand(w world) *cobra.Command {
	var o injected
	var namespace, level string
	var uid uint32
	c := &cobra.Command{
		Use:   "render --image IMAGE < pod.yaml",
		Short: "Print what injection makes of a pod on standard input",
		Long: "Print what injection makes of a pod on standard input, or why it is refused, without a cluster.\n" +
			"The engine's user is drawn anew each time unless --engine-uid says one.",
		Example: "  aegrail-control render --image registry.example/aegrail-engine:1 < pod.yaml",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := readEnv(c.Flags(), w.getenv); err != nil {
				return err
			}
			config, err := o.config(namespace)
			if err != nil {
				return err
			}
			config.CAGeneration, config.PodSecurity = 1, level
			if uid != 0 {
				config.UID = func() (uint32, error) { return uid, nil }
			}
			if err := config.Validate(); err != nil {
				return badInput(err)
			}
			return render(c.InOrStdin(), c.OutOrStdout(), config)
		},
	}
	o.define(c.Flags())
	c.Flags().StringVar(&namespace, "namespace", "aegrail-system", "control's `NAMESPACE`")
	c.Flags().StringVar(&level, "pod-security", "", "`LEVEL` that Pod Security enforces in the pod's namespace")
	c.Flags().Uint32Var(&uid, "engine-uid", 0, "the engine's `USER`; 0: drawn")
	return c
}

func render(in io.Reader, out io.Writer, config inject.Config) error {
	data, err := io.ReadAll(io.LimitReader(in, maxPod+1))
	if err != nil {
		return fmt.Errorf("reading the pod: %w", err)
	}
	if len(data) > maxPod {
		return badInput(fmt.Errorf("the pod has more than %d bytes", maxPod))
	}
	pod := new(corev1.Pod)
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		return badInput(fmt.Errorf("the pod on standard input: %w", err))
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return badInput(errors.New("standard input holds no v1 Pod; of a Deployment or Job, give the pod of its template"))
	}
	made, err := inject.Pod(pod, config)
	if err != nil {
		return badInput(fmt.Errorf("the pod is refused: %w", err))
	}
	text, err := yaml.Marshal(made)
	if err != nil {
		return fmt.Errorf("writing the pod: %w", err)
	}
	_, err = out.Write(text)
	return err
}
