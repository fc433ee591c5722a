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
{{- $served = append $served .namespace }}
{{- end }}
{{- end }}
