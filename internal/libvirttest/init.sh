# The first process in libvirtd's namespaces. Its argument is the daemon's folder.
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$1/run" /run
mount --bind "$1/etc" /etc/libvirt
for file in passwd group; do # libvirtd insists on the user that Debian's packages make
    mount --bind "$1/$file" "/etc/$file"
done
for kind in lib log cache; do
    if [ -d "/var/$kind/libvirt" ]; then
        mount --bind "$1/$kind/libvirt" "/var/$kind/libvirt"
    else
        mount --bind "$1/$kind" "/var/$kind"
    fi
done
echo ready
# wait collects the dead of the whole namespace: orphaned QEMUs too.
while :; do
    sleep 3600 &
    wait $! || :
done
