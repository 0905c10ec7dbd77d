package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

// listTable shows attachments; those of all hypervisors with the one that each is on.
func listTable(w *tabwriter.Writer, list []*brfusev1.Attachment, all bool) {
	host := ""
	if all {
		host = "HOST\t"
	}
	fmt.Fprintln(w, host+"ID\tVM\tPOD\tNAME\tIFNAME\tNETWORK\tADDRESSES\tMAC\tSLOT\tPORTS\tMANAGER\tPHASE")
	for _, m := range list {
		if all {
			host = hostOf(m) + "\t"
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", host, m.GetId(), m.GetVm(), shortPod(m.GetPod()), orDash(podName(m)),
			m.GetInterface(), m.GetNetwork(), join(m.GetAddresses()), orDash(m.GetMac()), orDash(m.GetSlot()), join(m.GetPorts()),
			orDash(m.GetManager()), m.GetPhase())
	}
}

// podName returns what people call a pod: NAMESPACE/NAME of Kubernetes, or the
// name of the container.
func podName(m *brfusev1.Attachment) string {
	labels := m.GetLabels()
	name := labels["k8s.pod"]
	if ns := labels["k8s.namespace"]; ns != "" && name != "" {
		name = ns + "/" + name
	}
	if name != "" {
		return name
	}
	return labels["container.name"]
}

// shortPod shortens an engine's ID of 64 digits to the 12 that engines show.
func shortPod(pod string) string {
	if len(pod) == 64 && strings.Trim(pod, "0123456789abcdef") == "" {
		return pod[:12]
	}
	return pod
}

// extraTable prints what only some attachments have.
func extraTable(w *tabwriter.Writer, m *brfusev1.Attachment) {
	if m.GetManager() != "" {
		fmt.Fprintf(w, "manager\t%s\n", m.GetManager())
	}
	for _, k := range slices.Sorted(maps.Keys(m.GetLabels())) {
		fmt.Fprintf(w, "label\t%s=%s\n", k, m.GetLabels()[k])
	}
	if len(m.GetPorts()) > 0 {
		fmt.Fprintf(w, "ports\t%s\n", join(m.GetPorts()))
	}
	if m.GetIngressRate() != 0 || m.GetEgressRate() != 0 {
		fmt.Fprintf(w, "bandwidth\t%s to the pod, %s from it\n", rate(m.GetIngressRate()), rate(m.GetEgressRate()))
	}
	if m.GetHandover() {
		fmt.Fprintln(w, "delivery\tto the engine, which moves it by itself")
	}
	if e := m.GetLastError(); e != "" {
		fmt.Fprintf(w, "last error\t%s\n", e)
	}
}

// rate shows bits per second.
func rate(bits uint64) string {
	units := []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s"}
	v, i := float64(bits), 0
	for ; v >= 1000 && i < len(units)-1; i++ {
		v /= 1000
	}
	if bits == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%.4g %s", v, units[i])
}
