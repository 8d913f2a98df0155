#!/usr/bin/env bash
# Commits the images of an environment's inventory and pushes them, also where somebody else has pushed meanwhile.
#   commit-environment.sh ENVIRONMENT MESSAGE     TOKEN: what may push; BRANCH: where to; ACTOR, EMAIL: who it is
set -euo pipefail
environment=$1 message=$2
file=inventories/$environment/group_vars/platform/images.yml
actor=${ACTOR:-${GITHUB_ACTOR:-pipeline}}
email=${EMAIL:-$actor@users.noreply.github.com}
# The token comes from the environment: an argument could be read by every process of the machine.
# shellcheck disable=SC2016
helper='!f() { echo username=x-access-token; echo "password=$TOKEN"; }; f'
settings=(-c "user.name=$actor" -c "user.email=$email" -c "credential.helper=$helper")

git add --force -- "$file"
if git diff --cached --quiet; then
  echo "$environment has these images already: nothing to commit"
  exit 0
fi
git "${settings[@]}" commit --quiet --message "$message" --message "$(sed -nE 's/^[a-z_]+_image: /  /p' "$file")"
for attempt in 1 2 3 4 5; do
  if git "${settings[@]}" push --quiet origin "HEAD:$BRANCH"; then
    git log -1 --format="pushed %h: %s"
    exit 0
  fi
  sleep "$attempt"
  git "${settings[@]}" fetch --quiet origin "$BRANCH"
  if ! git "${settings[@]}" rebase --quiet FETCH_HEAD; then
    echo "the images of $environment have been changed by another commit meanwhile: run this again" >&2
    exit 1
  fi
done
echo "$BRANCH cannot be pushed to: may this pipeline push there?" >&2
exit 1
