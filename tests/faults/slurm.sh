#!/usr/bin/env bash
# A SLURM of one machine for the tests, with its accounting, all of it in one folder; as root.
#
#   apt-get install --no-install-recommends slurmctld slurmd slurmdbd slurm-client slurm-wlm-basic-plugins \
#       slurm-wlm-mysql-plugin munge mariadb-server
#   tests/faults/slurm.sh start FOLDER [CPUS]
#   export SLURM_CONF=FOLDER/slurm.conf
#   tests/faults/slurm.sh stop FOLDER
#
# FOLDER is an absolute path. submitit asks the accounting (sacct) how its jobs are: hence slurmdbd and a database.
set -euo pipefail
action=$1 folder=$2 cpus=${3:-2} name=$(hostname -s)

stop() {
    for each in slurmd slurmctld slurmdbd mariadbd munged; do
        test -f "$folder/$each.pid" && kill "$(cat "$folder/$each.pid")" 2>/dev/null || true
    done
}

await() { # some command, for a minute
    for _ in $(seq 120); do timeout 5 "$@" >/dev/null 2>&1 && return; sleep 0.5; done
    echo "this did not succeed within a minute: $*" >&2
    exit 1
}

configure() {
    mkdir -p "$folder"/{state,spool,database}
    chmod 711 "$folder" # munge trusts a socket that nobody else can replace
    cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStoragePass=$folder/munge.socket
ReturnToService=2
KillWait=60
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cpus
PartitionName=test Nodes=$name Default=YES State=UP
END
    cat >"$folder/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
PidFile=$folder/slurmdbd.pid
LogFile=$folder/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16820
StorageUser=slurm
StoragePass=slurm
END
    chmod 600 "$folder/slurmdbd.conf"
}

start() {
    configure
    head -c 1024 /dev/urandom >"$folder/munge.key"
    chmod 400 "$folder/munge.key"
    munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
    mariadb-install-db --user=root --datadir="$folder/database" --skip-test-db >"$folder/mariadb.log"
    mariadbd --no-defaults --user=root --datadir="$folder/database" --socket="$folder/mariadb.socket" --port=16820 \
        --bind-address=127.0.0.1 --pid-file="$folder/mariadbd.pid" >>"$folder/mariadb.log" 2>&1 &
    await mariadb --no-defaults --socket="$folder/mariadb.socket" -e "SELECT 1"
    mariadb --no-defaults --socket="$folder/mariadb.socket" -e "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
        CREATE USER slurm@localhost IDENTIFIED BY 'slurm';
        GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'; GRANT ALL ON slurm_acct_db.* TO slurm@localhost"
    export SLURM_CONF=$folder/slurm.conf
    slurmdbd
    await sacctmgr --noheader show cluster
    slurmctld
    await scontrol ping
    slurmd -N "$name"
    await srun --ntasks=1 --time=1 true
    sinfo
}

trap 'test $? = 0 || stop' EXIT
"$action"
