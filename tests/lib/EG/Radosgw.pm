package EG::Radosgw;

# A real S3 server for a test: Ceph's object gateway over one monitor and one storage daemon that keeps
# everything in memory. Checks signatures, keys, clocks and payload hashes as AWS does.
#
#   use EG::Radosgw;
#   my $s3 = EG::Radosgw->start;         # skips the whole test when Ceph is not installed
#   daemon('gatewayd', env => { STORE => 's3', $s3->env, S3_BUCKET => 'cache' });
#   $s3->python(<<'PY', ...);            # s3 is a boto3 client; @ARGV as sys.argv
#   $s3->freeze; $s3->thaw;              # requests hang, and go on
#   $s3->kill_gateway; $s3->start_gateway;
#
# One at a time on a machine (a lock file), since it takes a second of both CPUs to start.

use strict;
use warnings;
use Fcntl qw(LOCK_EX LOCK_NB);
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes ();

use constant { ACCESS_KEY => 'testkey', SECRET => 'testsecret123' };

my @started;
my $OWNER = $$;

sub missing
{
	my @missing = grep { my $p = $_; !grep { -x "$_/$p" } split /:/, "$ENV{PATH}:/usr/sbin:/usr/bin" }
		qw(radosgw ceph-mon ceph-osd ceph ceph-authtool monmaptool radosgw-admin);
	return "no $missing[0] (Debian: radosgw ceph-mon ceph-osd ceph-common)" if @missing;
	return 'no boto3 (Debian: python3-boto3)' if system '/usr/bin/python3 -c "import boto3" 2>/dev/null';
	return;
}

sub free_port
{
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1, ReuseAddr => 1) // die "listen: $!";
	return $socket->sockport;
}

sub start
{
	my ($class) = @_;
	if (my $reason = missing()) { plan(skip_all => $reason) }
	my $self = bless { dir => EG::Test::test_path('ceph'), pids => {} }, $class;
	open $self->{lock}, '>', ($ENV{TMPDIR} // '/tmp') . "/eg-radosgw.$<.lock" or die "lock: $!";
	EG::Test::until_true(sub { flock $self->{lock}, LOCK_EX | LOCK_NB }, 'another test to stop its S3 server', 300);
	push @started, $self;
	$self->{port} = free_port();
	$self->configure;
	$self->start_cluster;
	$self->start_gateway;
	$self->tool('radosgw-admin', '-n', 'client.rgw.a', qw(user create --uid=test --display-name=test),
		'--access-key=' . ACCESS_KEY, '--secret=' . SECRET);
	return $self;
}

sub url { return "http://127.0.0.1:$_[0]{port}" }

sub env
{
	my ($self) = @_;
	return (S3_ENDPOINT_URL => $self->url, AWS_ACCESS_KEY_ID => ACCESS_KEY, AWS_SECRET_ACCESS_KEY => SECRET);
}

sub configure
{
	my ($self) = @_;
	my $dir = $self->{dir};
	mkdir $_ or die "$_: $!" for $dir, map { "$dir/$_" } qw(mon osd rgw run);
	my ($v2, $v1) = (free_port(), free_port());
	chomp(my $id = EG::Test::slurp('/proc/sys/kernel/random/uuid'));
	$self->{id} = $id;
	$self->{address} = "[v2:127.0.0.1:$v2,v1:127.0.0.1:$v1]";
	my ($lib) = grep { -d "$_/erasure-code" } glob('/usr/lib/*/ceph'), '/usr/lib/ceph';
	(my $classes = $lib // '') =~ s/ceph$/rados-classes/;
	# cephx: the gateway's own user needs it. The small numbers make one node ready in a second.
	EG::Test::spew("$dir/ceph.conf", <<"CONF");
[global]
fsid = $id
mon host = [v2:127.0.0.1:$v2/0,v1:127.0.0.1:$v1/0]
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd heartbeat grace = 600
mon allow pool size one = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
paxos propose interval = 0.02
paxos min wait = 0.01
run dir = $dir/run
admin socket = $dir/run/\$cluster-\$name.asok
log file = $dir/\$name.log
pid file = $dir/run/\$name.pid
keyring = $dir/keyring
erasure code dir = $lib/erasure-code
plugin dir = $lib
osd class dir = $classes
[mon.a]
host = localhost
mon data = $dir/mon
mon data avail crit = 1
mon data avail warn = 2
mon cluster log file = $dir/cluster.log
[osd.0]
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd max object name len = 460
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:$self->{port} tcp_nodelay=1
rgw data = $dir/rgw
rgw enable usage log = false
rgw run sync thread = false
rgw dns name = 127.0.0.1
rgw gc max objs = 7
rgw lc max objs = 7
CONF
	return;
}

# A program that ends; its output goes to a file that a failure names.
sub tool
{
	my ($self, $program, @args) = @_;
	my $log = "$self->{dir}/tools.log";
	my @command = ($program, $program =~ /^(?:ceph-authtool|monmaptool)$/ ? () : ('-c', "$self->{dir}/ceph.conf"), @args);
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		open STDOUT, '>>', $log or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	waitpid $pid, 0;
	die "@command failed:\n" . EG::Test::slurp($log) if $?;
	return;
}

sub run
{
	my ($self, $name, @command) = @_;
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$self->{dir}/$name.out" or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	$self->{pids}{$name} = $pid;
	return;
}

sub start_cluster
{
	my ($self) = @_;
	my ($dir, $keys, @all) = ($self->{dir}, "$self->{dir}/keyring", qw(--cap mon), 'allow *', qw(--cap osd), 'allow *');
	my @conf = ('-c', "$dir/ceph.conf");
	$self->tool('ceph-authtool', '--create-keyring', $keys, '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *');
	$self->tool('ceph-authtool', $keys, '--gen-key', '-n', $_, @all) for qw(client.admin client.rgw.a);
	$self->tool('ceph-authtool', $keys, '--gen-key', '-n', 'osd.0', @all, '--cap', 'mgr', 'allow *');
	$self->tool('monmaptool', '--create', '--fsid', $self->{id}, '--addv', 'a', $self->{address}, "$dir/monmap");
	$self->tool('ceph-mon', '-i', 'a', '--mkfs', '--monmap', "$dir/monmap", '--keyring', $keys);
	$self->run(mon => 'ceph-mon', @conf, qw(-i a -f));
	chomp(my $osd = EG::Test::slurp('/proc/sys/kernel/random/uuid'));
	$self->tool('ceph', qw(--connect-timeout 30 osd new), $osd);
	$self->tool('ceph-osd', qw(-i 0 --mkfs --osd-uuid), $osd);
	$self->run(osd => 'ceph-osd', @conf, qw(-i 0 -f));
	$self->tool('ceph', qw(osd crush add osd.0 1 host=localhost root=default));
	return;
}

sub start_gateway
{
	my ($self) = @_;
	$self->run(rgw => 'radosgw', '-c', "$self->{dir}/ceph.conf", qw(-n client.rgw.a -f));
	EG::Test::until_true(
		sub {
			my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 1) or return 0;
			print $socket "GET / HTTP/1.0\r\n\r\n";
			return defined readline $socket;
		}, 'radosgw', 60);
	return;
}

sub stop
{
	my ($self, $name) = @_;
	my $pid = delete $self->{pids}{$name} or return;
	kill KILL => $pid;
	waitpid $pid, 0;
	return;
}

sub kill_gateway { $_[0]->stop('rgw'); return }
sub freeze { kill STOP => $_[0]{pids}{osd}; return }
sub thaw { kill CONT => $_[0]{pids}{osd}; return }

# Runs Python with boto3; returns what it prints, or dies with what it says.
sub python
{
	my ($self, $code, @args) = @_;
	my ($in, $out) = ("$self->{dir}/script.py", "$self->{dir}/script.out");
	EG::Test::spew($in, <<"PY" . $code);
import boto3, gzip, hashlib, json, os, sys
from botocore.config import Config
s3 = boto3.client('s3', endpoint_url='@{[ $self->url ]}', region_name='us-east-1', aws_access_key_id='@{[ ACCESS_KEY ]}',
	aws_secret_access_key='@{[ SECRET ]}', config=Config(s3={'addressing_style': 'path'}))
PY
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		open STDOUT, '>', $out or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
		exec '/usr/bin/python3', $in, @args or POSIX::_exit(127);
	}
	waitpid $pid, 0;
	my $said = EG::Test::slurp($out);
	die "python: $said" if $?;
	return $said;
}

sub stop_all
{
	return if $$ != $OWNER;
	for my $self (@started) {
		# The gateway first: it waits for the others for ever.
		$self->stop($_) for qw(rgw osd mon);
	}
	@started = ();
	return;
}

END { my $status = $?; stop_all(); $? = $status }

1;
