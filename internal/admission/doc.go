// Package admission answers the API server's questions about pods and policies: the HTTP shell of package inject. It
// keeps no state, calls nobody but the cache that it is given, and refuses what it does not understand: an answer that is no
// AdmissionReview counts as a refusal too, since the webhooks' failurePolicy is Fail.
//
//	POST /mutate-pod        CREATE of pods: the pod with the engine in it. UPDATE of pods/ephemeralcontainers: the new container, held
//	POST /validate-pod      CREATE of pods: the final pod is as it was injected. UPDATE: it stays so. pods/ephemeralcontainers, pods/resize.
//	                        CONNECT to pods/exec and pods/attach: into the engine's container only to read the log
//	POST /validate-policy   ConfigMaps with policy: they compile, or the error names rule, field and line
//	POST /validate-bundle   the bundle ConfigMaps: only control writes them
//
// # Which pods are asked about
//
// What is sent to /mutate-pod is injected or refused: which pods these are is decided by the API server, by the webhook's
// selectors, and not again here, where a cache may be behind. So the configurations are part of the boundary. Two webhooks in each
// configuration, as a selector of namespaces and a condition on the pod are alternatives:
//
//	namespace  namespaceSelector: aegrail.io/inject Exists (a value other than enabled refuses the pods: a typing error is no way out);
//	           matchConditions: MatchValidateNamespace in the validating one, none in the mutating one
//	pod        namespaceSelector: aegrail.io/inject DoesNotExist; matchConditions: MatchMutatePod, MatchValidatePod
//
// Both selectors also have kubernetes.io/metadata.name NotIn control's namespace, cert-manager's, kube-system: what has to run for a
// pod to be admitted cannot wait for its own admission. Nobody who makes agents' pods may have rights in these.
//
//	MutatingWebhookConfiguration
//	  rules:  "" v1 pods CREATE; "" v1 pods/ephemeralcontainers UPDATE; scope Namespaced
//	  reinvocationPolicy: IfNeeded    what a later webhook prepends is put behind the engine again
//	ValidatingWebhookConfiguration, pods
//	  rules:  "" v1 pods CREATE UPDATE; "" v1 pods/ephemeralcontainers pods/resize UPDATE; "" v1 pods/exec pods/attach CONNECT; scope Namespaced
//	ValidatingWebhookConfiguration, ConfigMaps
//	  policy  namespaceSelector: kubernetes.io/metadata.name In control's; objectSelector: aegrail.io/policy=true; configmaps CREATE UPDATE
//	  bundle  matchConditions: MatchBundle; configmaps CREATE UPDATE DELETE
//	all of them
//	  failurePolicy: Fail, sideEffects: None, timeoutSeconds: 5, admissionReviewVersions: [v1], matchPolicy: Equivalent
//
// The conditions leave out updates that change nothing of ours, so that a Job's pods can be finished and labels be adopted while
// control is away. They need Kubernetes 1.30 (matchConditions), as the engine does 1.29 (sidecars).
//
// The objectSelector of the policy webhook looks at the object before and after, so that a label cannot be taken off to get by.
//
// # What it costs a right to get around
//
// To remove the namespace's label takes the right to update namespaces, to change the webhooks that to update webhook configurations.
// Neither is an agent's, and control reports pods that run without an engine in a namespace that has a CA.
package admission
