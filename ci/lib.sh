# Sourced by the scripts in this folder and by .ci/run: what more than one of them
# needs.

# repo is the root of the checkout; every script works from there.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo"

# cache holds what was downloaded. It is not part of the repository.
cache=$repo/ci/.cache
mkdir -p "$cache"

# fail ends the script with a reason.
fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# need_packages installs the Debian packages that are not there yet.
need_packages() {
	local package missing=()
	for package; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
			missing+=("$package")
	done
	((${#missing[@]})) || return 0
	echo "installing ${missing[*]}"
	[[ $(id -u) = 0 ]] || fail "as root, please: apt-get install ${missing[*]}"
	apt_update
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
		-o Dpkg::Use-Pty=0 "${missing[@]}" >"$cache/apt.log" 2>&1 ||
		{ cat "$cache/apt.log" >&2; fail "could not install ${missing[*]}"; }
}

# apt_update refreshes the machine's package lists, once per hour at most.
apt_update() {
	local stamp=/var/lib/apt/lists/ringloop-updated
	[[ -n $(find "$stamp" -mmin -60 2>/dev/null) ]] && return
	apt-get update -qq || fail "apt-get update failed"
	touch "$stamp"
}
