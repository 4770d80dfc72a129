//! The agent against a fake control service, a simulated Kibana and a simulated OpenAI, all on loopback.

#[cfg(test)]
mod binary;
#[cfg(test)]
mod control;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod drift;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod enrolment;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod grants;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod install;
#[cfg(test)]
mod load;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod remote;
#[cfg(test)]
mod removal;
#[cfg(test)]
mod renewal;
#[cfg(test)]
mod replaced;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod survey;
#[cfg(test)]
mod unsure;
