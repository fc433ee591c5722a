package admission

import (
	"fmt"

	kubejson "k8s.io/apimachinery/pkg/util/json"
)

const (
	// maxElements bounds the values of a review, whose memory is up to a thousand times their text. A pod with thirty containers of
	// a hundred variables each, twice and with its managedFields, has 60 000; text counts for nothing, however long.
	maxElements = 100_000

	// maxContainers bounds a pod's containers of all kinds together: each has a copy of the engine's variables, in memory and in the patch.
	maxContainers = 256

	// maxVolumes bounds a pod's volumes, of which a node takes far fewer.
	maxVolumes = 1024
)

// elements counts what makes a value in JSON: commas and opening brackets that are not in a string. Of what is no JSON it says anything.
func elements(text []byte) int {
	n, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++ // what is escaped does not end the string
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '{' || c == '['):
			n++
		}
	}
	return n
}

// fits refuses a pod with more containers or volumes than are injected. It is asked before they are decoded: one without a field has 2 bytes as text
// and takes half a kilobyte.
func fits(raw []byte) error {
	var pod struct {
		Spec struct {
			InitContainers      []struct{} `json:"initContainers"`
			Containers          []struct{} `json:"containers"`
			EphemeralContainers []struct{} `json:"ephemeralContainers"`
			Volumes             []struct{} `json:"volumes"`
		} `json:"spec"`
	}
	if err := kubejson.Unmarshal(raw, &pod); err != nil {
		return fmt.Errorf("reading the pod: %w", err)
	}
	if n := len(pod.Spec.InitContainers) + len(pod.Spec.Containers) + len(pod.Spec.EphemeralContainers); n > maxContainers {
		return refusef("spec: the pod has %d containers, and at most %d are injected; make several pods of it", n, maxContainers)
	}
	if n := len(pod.Spec.Volumes); n > maxVolumes {
		return refusef("spec.volumes: the pod has %d volumes, and at most %d are injected; project several sources into one", n, maxVolumes)
	}
	return nil
}
