{{/* What the schema cannot say. A render that fails here has changed nothing in the cluster. */}}
{{- define "aegrail.checks" -}}
{{- if (index .Values "cert-manager").enabled }}
{{- $there := get .Subcharts "cert-manager" }}
{{- if or (not $there) (eq $there.Chart.Version "0.0.0") }}
{{- fail "cert-manager.enabled: its chart is not there; run `helm dependency build` on this chart, or install cert-manager by itself and leave this off" }}
{{- end }}
{{- end }}
{{- if and .Values.audit.keep (not (and .Values.audit.anchors .Values.audit.sinks)) }}
{{- fail "audit.keep: segments go only when an anchor and a sink have them; name audit.anchors and audit.sinks, or keep all with 0" }}
{{- end }}
{{- $rotate := include "aegrail.bytes" .Values.audit.rotateSize | int64 }}
{{- if lt $rotate 65536 }}
{{- fail "audit.rotateSize: want 64Ki or more; engines refuse less" }}
{{- end }}
{{- if and (not .Values.audit.claim) (ge $rotate (include "aegrail.bytes" .Values.audit.sizeLimit | int64)) }}
{{- fail "audit.rotateSize: want less than audit.sizeLimit, or kubelet evicts a pod before its log has begun a second file" }}
{{- end }}
{{- if and .Values.control.enabled (not .Values.control.issuer.kind | eq (not .Values.control.issuer.name) | not) }}
{{- fail "control.issuer: kind and name belong together" }}
{{- end }}
{{- if hasKey .Values.policies "default" }}
{{- fail "policies.default: that is the name of policy; choose another" }}
{{- end }}
{{- $served := list }}
{{- range .Values.gateways }}
{{- if has .namespace $served }}
{{- fail (printf "gateways: %s is there twice" .namespace) }}
{{- end }}
{{- if lt (int (.maxReplicas | default 6)) (int (.minReplicas | default 2)) }}
{{- fail (printf "gateways: %s: maxReplicas is below minReplicas" .namespace) }}
{{- end }}
{{- $resources := .resources | default $.Values.engine.resources }}
{{- if not (or (($resources).requests).cpu (($resources).limits).cpu) }}
{{- fail (printf "gateways: %s: resources.requests.cpu is missing; replicas scale by how much of it they use" .namespace) }}
{{- end }}
{{- $served = append $served .namespace }}
{{- end }}
{{- include "aegrail.clusterChecks" . }}
{{- end }}

{{/*
What only the cluster can say. Helm finds it too, but in the middle of an upgrade, or in words about ownership. Without a
cluster (helm template) nothing is found, and nothing is checked.
*/}}
{{- define "aegrail.clusterChecks" -}}
{{- $namespaces := list }}
{{- range .Values.gateways }}{{ $namespaces = append $namespaces .namespace }}{{ end }}
{{- range .Values.plain.namespaces }}{{ $namespaces = append $namespaces .name }}{{ end }}
{{- if and $namespaces (lookup "v1" "Namespace" "" "kube-system") }}
{{- range $namespaces | uniq }}
{{- if not (lookup "v1" "Namespace" "" .) }}
{{- fail (printf "gateways and plain.namespaces: there is no namespace %s yet; make it first: kubectl create namespace %s" . .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.control.enabled }}
{{- $there := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "aegrail-control" }}
{{- $owner := (($there).metadata).annotations | default dict }}
{{- $name := get $owner "meta.helm.sh/release-name" }}
{{- $namespace := get $owner "meta.helm.sh/release-namespace" }}
{{- if and $name (or (ne $name .Release.Name) (ne $namespace .Release.Namespace)) }}
{{- fail (printf "there is one control in a cluster, and this one has it: release %s in namespace %s; upgrade that, or leave control.enabled off here" $name $namespace) }}
{{- end }}
{{- end }}
{{- end }}
