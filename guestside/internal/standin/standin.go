// Package standin lets tests of the packages around guestside give an agent
// virtual devices for vNICs, which it otherwise takes for a pod's forgeries.
package standin

// Kind is the kind of device, such as "veth".
type Kind string
