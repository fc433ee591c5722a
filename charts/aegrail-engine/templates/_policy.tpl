{{/*
aegrail.policies renders values as the documents of an AgentPolicy file: policy
as "default", and policies by their names. With a namespace in the argument
only what can select an agent there, since a sidecar is to see no other rules.
The argument is a dict of root and namespace.
*/}}
{{- define "aegrail.policies" -}}
{{- $all := dict "default" .root.Values.policy }}
{{- range $name, $policy := .root.Values.policies }}
{{- $_ := set $all $name $policy }}
{{- end }}
{{- range $name := keys $all | sortAlpha }}
{{- $policy := get $all $name }}
{{- $namespaces := (($policy.agents).namespaces) | default list | uniq }}
{{- $accounts := (($policy.agents).serviceAccounts) | default list | uniq }}
{{- if not (or $namespaces $accounts) }}
{{- fail (printf "%s.agents: says nobody; name namespaces, serviceAccounts or both" (ternary "policy" (printf "policies.%s" $name) (eq $name "default"))) }}
{{- end }}
{{- if or (not $.namespace) (not $namespaces) (has $.namespace $namespaces) }}
{{- $agents := dict }}
{{- with $namespaces }}{{ $_ := set $agents "namespaces" . }}{{ end }}
{{- with $accounts }}{{ $_ := set $agents "serviceAccounts" . }}{{ end }}
---
apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata:
  name: {{ $name | quote }}
spec:
  agents:
    {{- toYaml $agents | nindent 4 }}
  mode: {{ $policy.mode | default "enforce" }}
  {{- with $policy.allowlist }}
  allowlist:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $policy.rules }}
  rules:
    {{- toYaml $policy.rules | nindent 4 }}
  {{- else }}
  rules: []
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
