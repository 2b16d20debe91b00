package Many;

# Very many clients of one proxy, as bare sockets.
#
#   Many::skip_without($n);           # skips the test where so many descriptors are not to be had
#   my $many = Many->new($proxy, $n);
#   $many->round(1)                   # each writes and reads its own key; how many got something else
#   $many->close;

use strict;
use warnings;
use EG::Test;
use Redis;
use Socket qw(PF_INET SOCK_STREAM inet_aton pack_sockaddr_in);

sub skip_without
{
	my ($n) = @_;
	my ($hard) = `sh -c 'ulimit -Hn'` =~ /(\d+)/;
	plan(skip_all => "no more than $hard descriptors here") if defined $hard && $hard < $n + 500;
	return;
}

sub new
{
	my ($class, $proxy, $n) = @_;
	my $to = pack_sockaddr_in($proxy->redis_port, inet_aton('127.0.0.1'));
	my @sockets;
	for (1 .. $n) {
		socket my $s, PF_INET, SOCK_STREAM, 0 or die "client $_: $!";
		connect $s, $to or die "client $_: $!";
		push @sockets, $s;
	}
	wait_for { $proxy->metric('redisproxy_clients') >= $n } 'all of them to be accepted';
	return bless { proxy => $proxy, sockets => \@sockets }, $class;
}

sub round
{
	my ($self, $round) = @_;
	my @sockets = @{ $self->{sockets} };
	syswrite $sockets[$_], Redis::encode('SET', "many:$_", "$round-$_") . Redis::encode('GET', "many:$_") for 0 .. $#sockets;
	my $bad = 0;
	for my $i (0 .. $#sockets) {
		my $want = "+OK\r\n\$" . length("$round-$i") . "\r\n$round-$i\r\n";
		my $got = '';
		while (length $got < length $want) {
			sysread $sockets[$i], $got, 4096, length $got or last;
		}
		$bad++ if $got ne $want;
	}
	return $bad;
}

sub close
{
	my ($self) = @_;
	close $_ for @{ $self->{sockets} };
	$self->{sockets} = [];
	wait_for { $self->{proxy}->metric('redisproxy_clients') == 0 } 'all of them to be gone';
	return;
}

1;
